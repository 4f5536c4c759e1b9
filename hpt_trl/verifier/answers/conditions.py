r"""What is said about the variables of an answer: `for all x > 0`, `where k is odd`, `k \in \mathbb{Z}`."""

import re

_START = re.compile(
    r"[,(]?\s*(?:\\text\{\s*,?\s*\(?)?\(?(?<![a-zA-Z\\])(?:where|when|whenever|if|provided"
    r"|for(?= (?:all|any|every|each|some)\b))(?![a-zA-Z])"
    r"|,?\s*\\forall(?![a-zA-Z])|[,(]\s*(?=[a-z]\s*\\in(?![a-zA-Z])\s*\\mathbb)"
)
_PAIRS = (("{", "}"), ("(", ")"), (r"\begin{", r"\end{"))
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_EVERY = r"(?:for (?:all|any|every|each)|\\forall)"
# A variable that may be anything. The groups are the variable.
_ARBITRARY = [
    re.compile(pattern)
    for pattern in (
        rf"(?:where |{_EVERY} ?)?([a-zA-Z]) ?\\in ?\\mathbb\{{[ZR]\}}",
        rf"{_EVERY} ?(?:real |real numbers? |\\mathbb\{{R\}} ?)?([a-zA-Z])",
        rf"(?:where|{_EVERY}) ?([a-zA-Z]) is an(?:y|) ?(?:arbitrary )?integer",
        rf"{_EVERY} ?(?:integers?|\\mathbb\{{Z\}}) ?([a-zA-Z])",
        r"where ([a-zA-Z]) is an? (?:arbitrary |real )?constant",
    )
]
# With "for all", a range says what the variable is; the answer may add it.
_RANGE = re.compile(rf"{_EVERY} ?(?:real )?([a-zA-Z]) ?(?:<|>|\\le|\\ge|\\in|\\ne)(?![a-zA-Z]).*")
_INTEGERS = re.compile(r"integer|\\mathbb\{Z\}")


def split_condition(text: str) -> tuple[str, str]:
    r"""Split a text into its value and its condition, which is empty without one.

    Example:
        >>> split_condition(r"k\pi \text{ where } k \text{ is odd}")
        ('k\\pi', 'where k is odd')
    """
    for match in _START.finditer(text):
        value = text[: match.start()].strip()
        if value and all(value.count(opening) == value.count(end) for opening, end in _PAIRS):
            return value, _normal(text[match.start() :])
    return text, ""


def _normal(text: str) -> str:
    opened = text.count("(") - text.count(")")
    text = re.sub(r"^[,(]+\s*", "", text.strip())
    text = _TEXT.sub(r" \1 ", text)
    text = re.sub(r"\s+", " ", text).strip(" .,")
    return text.removesuffix(")").strip() if opened == 0 and text.count(")") > text.count("(") else text


def same_condition(gold: str, answer: str, value: str) -> bool:
    """Whether two conditions say the same, or the one that is missing goes without saying.

    Args:
        gold: condition of the gold answer.
        answer: condition of the answer.
        value: the text of the value that has a condition; the variable must occur in it.
    """
    if not gold or not answer:
        given = gold or answer
        match = _match(given) or _RANGE.fullmatch(given)
        return not given or (match is not None and match[1] in value)
    matches = _match(gold), _match(answer)
    if all(matches):
        return bool(_INTEGERS.search(gold)) == bool(_INTEGERS.search(answer))
    return re.sub(r"\s|^where|^for (?:all|any|every|each)", "", gold) == re.sub(
        r"\s|^where|^for (?:all|any|every|each)", "", answer
    )


def _match(condition: str) -> re.Match[str] | None:
    return next((match for pattern in _ARBITRARY if (match := pattern.fullmatch(condition))), None)


def says_integer(condition: str) -> bool:
    """Whether a condition says that a variable is any integer."""
    return _match(condition) is not None and bool(_INTEGERS.search(condition))
