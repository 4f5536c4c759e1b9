"""Gold answers in the known forms of data sets, which hold more than the bare answer."""

import re

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"(?:the )?(?:final )?answer(?: is)?\s*:\s*(.+)", re.IGNORECASE | re.DOTALL)
_QUESTION_LABEL = re.compile(r"A:\s*(?!\s)([-+$\\\d(.\[{].*)", re.DOTALL)
_WORD = re.compile(r"(?<![\\\w])[A-Za-z]{2,}")
_MAX_WORDS = 15
"""No gold answer of the benchmarks has as many words; a solution written out has more."""


def is_ambiguous(text: str) -> bool:
    """Whether a gold answer such as `A: 5` can be an answer after its label, and option A with its text."""
    return _QUESTION_LABEL.fullmatch(text.strip()) is not None


def bare_gold(text: str) -> str:
    r"""The answer in a gold answer, without what is around it in a known form; any other text unchanged.

    The forms are the end of a GSM8K solution (`#### 72`), `<answer>5</answer>`, `Answer: 5`, and `A: 5` where the
    answer is no word. Boxes are read later. Prose without a box is no answer: it becomes "", which counts as
    unreadable.

    Example:
        >>> bare_gold("She has 70 + 2 = 72 apples.\n#### 1,072"), bare_gold("<answer>5</answer>"), bare_gold("A: 5")
        ('1072', '5', '5')
    """
    if "####" in text:
        return re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.rpartition("####")[2].strip())
    tagged = _ANSWER_TAG.findall(text)
    if tagged:
        return tagged[-1].strip()
    label = _LABEL.fullmatch(text.strip()) or _QUESTION_LABEL.fullmatch(text.strip())
    if label:
        return label[1].strip()
    return "" if "\\boxed" not in text and len(_WORD.findall(text)) > _MAX_WORDS else text
