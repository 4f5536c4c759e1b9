r"""The letter that an answer to a multiple-choice question chooses, if it chooses exactly one."""

import re

from hpt_trl.verifier.answers.boxes import after_thinking, gold_content, last_box_span

# The patterns run on full completions in the main process, so each must match in linear time.
_MARKUP = re.compile(
    r"[*_${}\"“”`]|\\(?:text(?:bf|it|rm|tt)?|math(?:rm|bf|it)|boxed|fbox|left|right|bf|rm)(?![a-zA-Z])|\\[()\[\] ,;!]"
)
_LETTER = re.compile(r"(?:(?:option|choice|answer)\b[ :]*)?(?:\(([A-J])\)|([A-J])(?![\w']))(.*)", re.IGNORECASE)
# Upper case only, and not followed by text that changes its meaning: "the answer is a dog", "is C or D".
_STATEMENT = re.compile(
    r"(?i:\b(?:answer|option|choice)) ?(?:(?i:is) ?:?|[:=]) ?(?:(?i:option|choice) )?"
    r"(?:\(([A-J])\)|([A-J])(?= ?(?:[.,;:!)\]]|\n|$|because\b|since\b|as\b)))"
)
_LAST_LINE = re.compile(r"(?:(?i:so|thus|hence|therefore)[,:]? )?(?:\(([A-J])\)|([A-J])(?=[).:]|$))(.*)")
# A second letter, or a word that takes the first one back. "A" may be an article, "I" a pronoun.
_SECOND = re.compile(
    r"\([A-J]\)|\b[B-HJ]\b(?!')|\bA\b(?! (?!is\b|and\b|or\b|are\b|also\b|was\b)[a-z])"
    r"|(?i:\b(?:or|not|no|wrong|incorrect|false|maybe|perhaps|either|both|neither|wait|alternatively)\b)"
)
_REJECTED = re.compile(r",? (?:and )?not \(?[A-J]\b\)?")
_SENTENCE = re.compile(r"[.!?](?= [^a-z]|$)|\b(?:because|since)\b")
_RETRACTION = re.compile(r"(?:[.!?]|^) ?(?i:or|no|wait|actually|alternatively|but|maybe)\b.*")


def letter_of(text: str) -> str | None:
    r"""The letter that a text chooses, alone or with the text of its option (`C`, `\text{(C)}`, `C) 42`), or None.

    Example:
        >>> letter_of(r"\text{(C)}"), letter_of("C) 42"), letter_of("C or D"), letter_of("C is right")
        ('C', 'C', None, None)
    """
    match = _LETTER.fullmatch(_plain(text))
    if not match:
        return None
    rest = match[3].strip()
    is_option = not rest or match[1] is not None or rest[0] in ").:,"
    return (match[1] or match[2]).upper() if is_option and not _SECOND.search(rest.lstrip(")")) else None


def choice_of_gold(gold: str) -> str | None:
    r"""The letter that a gold answer consists of (`C`, `(C)`, `\boxed{C}`, `C. 42`), or None if it is not a choice."""
    content = gold_content(gold)
    letter = letter_of(content)
    plain = _plain(content)
    is_choice = letter is not None and plain.removeprefix("(")[:1] == letter and re.match(r"\(?[A-J](?:[).:]|$)", plain)
    return letter if is_choice else None


def final_choice(text: str) -> str | None:
    """The letter A to J that a completion chooses after its reasoning; the last statement of a choice counts.

    A statement is a box, "the answer is (C)", "Answer: C", or a last line that consists of the choice alone. A letter
    that merely occurs in prose does not count, nor does a statement that names a second letter or takes itself back.

    Example:
        >>> final_choice("A is tempting, but the answer is (C).")
        'C'
        >>> final_choice("The answer is (C) or (D).") is None
        True
    """
    answer = after_thinking(text)
    if answer is None:
        return None
    span = last_box_span(answer)
    if span is None and r"\boxed" in answer:  # truncated
        return None
    plain = _plain(answer if span is None else answer[span[1] :])
    statements = list(_STATEMENT.finditer(plain))
    if statements:
        last = statements[-1]
        letter = last[1] or last[2]
        return letter if _is_final(plain[last.end() :].partition("\n")[0]) else None
    if span is not None:
        box = answer[slice(*span)]
        return letter_of(box) or box
    match = _LAST_LINE.fullmatch(plain.rpartition("\n")[2])
    is_alone = match is not None and (match[3].startswith(")") or not match[3].strip(" .)"))
    is_one = is_alone and match is not None and not _SECOND.search(match[3])
    return (match[1] or match[2]) if match is not None and is_one else None


def _plain(text: str) -> str:
    plain = _MARKUP.sub("", text)
    return re.sub(r"\s+", lambda space: "\n" if "\n" in space[0] else " ", plain).strip()


def _is_final(rest: str) -> bool:
    """Whether the rest of the line after a statement neither names another letter nor takes the statement back."""
    rest = _REJECTED.sub("", rest)
    sentence = _SENTENCE.split(rest, maxsplit=1)[0]
    return not _RETRACTION.search(rest) and not _SECOND.search(sentence)
