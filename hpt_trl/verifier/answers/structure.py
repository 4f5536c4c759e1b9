"""An answer taken apart: lists, sets, tuples, intervals, matrices, equations, and the terms they are made of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpt_trl.verifier.answers.spelling import closing, split


@dataclass(frozen=True)
class Answer:
    """One answer, taken apart.

    `kind` is "term", or what `parts` are the elements of: "set", "list", "union", "tuple", "matrix" (of rows),
    "interval" (two ends, `brackets` tells which belong to it) or "equation" (two sides). `name` is the left side of an
    assignment.
    """

    kind: str
    text: str
    parts: tuple["Answer", ...] = ()
    brackets: str = ""
    name: str = ""


_ITEMS = re.compile(r"[,;]\s*(?:and\b|or\b)?|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_THOUSANDS = re.compile(r"([^,()\[\]{}]*?(?<!\d))(\d{1,3}(?:,\d{3})+)(?!\d)([^,]*)")
_UNION = re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]}])\s*[Uu]\s*(?=[(\[\\])")
_RELATION = re.compile(r"\\ne(?![a-zA-Z])|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>")
EQUALS = re.compile(r"(?<![<>!\\])=")
_VARIABLE = r"(?:[a-zA-Z]|\\[a-z]+)(?:_\{?\w+\}?)?"
_NAME = re.compile(
    rf"(?:{_VARIABLE}|[a-zA-Z]+(?:_\{{[^{{}}]*\}})?|\\text\{{[^{{}}]*\}})\s*'*(?:\^\{{-1\}})?(?:\([^()]*\))?"
    r"|\\frac\{\s*d[^{}]*\}\{\s*d[^{}]*\}|\\\|[^|]*\\\||\|[A-Z]{2,}\||\\(?:overline|vec|hat|bar)\{[^{}]*\}"
    r"|\\(?:mathbb\{[PE]\}|Pr)\s*[(\[][^()\[\]]*[)\]]"
)
_ABSOLUTE = re.compile(rf"\|\s*({_VARIABLE})\s*\|\s*(<|>|\\le|\\ge)(?![a-zA-Z])\s*([^<>|]+)")
_NAMES = re.compile(rf"\((?:{_VARIABLE}\s*,\s*)+{_VARIABLE}\)|m?\s*\\angle\s*[A-Z ]+")
_MEMBER = re.compile(rf"({_VARIABLE})\s*\\in(?![a-zA-Z])\s*(.+)", re.DOTALL)
_BUILDER = re.compile(rf"{_VARIABLE}(?:\s*\\in\s*\S+)?\s*[|:]\s*(.+)", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_OUTSIDE_IN = re.compile(r"([\[\](])([^,;\[\]]+)[,;]([^,;\[\]]+)([\[\])])")


def take_apart(text: str) -> Answer:
    """The structure of a cleaned answer."""
    text = text.strip()
    if found := _THOUSANDS.fullmatch(text):
        text = found[1] + found[2].replace(",", "") + found[3]
    for reader in (
        _outside_in_interval,
        _items,
        _union,
        _plus_minus,
        _member,
        _distance,
        _inequality,
        _equation,
        _brackets,
        _matrix,
    ):
        answer = reader(text)
        if answer is not None:
            return answer
    return Answer("term", text)


def _outside_in_interval(text: str) -> Answer | None:
    # ]1,2[ is how much of the world writes (1,2).
    found = _OUTSIDE_IN.fullmatch(text)
    if not found or not (found[1] == "]" or found[4] == "["):
        return None
    brackets = ("[" if found[1] == "[" else "(") + ("]" if found[4] == "]" else ")")
    return Answer("interval", text, (take_apart(found[2]), take_apart(found[3])), brackets)


def _items(text: str) -> Answer | None:
    parts = [part for part in split(text, _ITEMS) if part]
    if len(parts) < 2:
        return None
    answers = tuple(map(take_apart, parts))
    if "and" not in text and all(each.kind == "interval" and _RELATION.search(each.text) for each in answers):
        return Answer("union", text, _flat(answers, "union"))
    if len(answers) == 2 and (both := _intersection(*answers)):
        return both
    named = {each.name for each in answers if each.name}
    if len(named) == 1:  # x=1,2
        answers = tuple(replace(each, name=next(iter(named))) for each in answers)
    return Answer("list", text, _flat(answers, "list"))


def _intersection(one: Answer, other: Answer) -> Answer | None:
    """`x > a and x < b` as `a < x < b`."""
    if one.kind != "interval" or other.kind != "interval" or not one.name or one.name != other.name:
        return None
    below, above = (one, other) if one.parts[0].text == r"-\infty" else (other, one)
    if below.parts[0].text != r"-\infty" or above.parts[1].text != r"\infty":
        return None
    ends = (above.parts[0], below.parts[1])
    return Answer("interval", f"{above.text} and {below.text}", ends, above.brackets[0] + below.brackets[1], one.name)


def _flat(answers: Sequence[Answer], kind: str) -> tuple[Answer, ...]:
    return tuple(part for each in answers for part in (each.parts if each.kind == kind else (each,)))


def _union(text: str) -> Answer | None:
    parts = split(text, _UNION)
    return Answer("union", text, _flat(tuple(map(take_apart, parts)), "union")) if len(parts) > 1 else None


def _plus_minus(text: str) -> Answer | None:
    if r"\pm" not in text or text.startswith(r"\{") or len(split(text, EQUALS)) > 1:
        return None
    above, below = text.replace(r"\pm", "+").replace(r"\mp", "-"), text.replace(r"\pm", "-").replace(r"\mp", "+")
    return Answer("list", text, (take_apart(above.removeprefix("+")), take_apart(below)))


def _member(text: str) -> Answer | None:
    found = _MEMBER.fullmatch(text)
    return replace(take_apart(found[2]), name=found[1]) if found else None


def _distance(text: str) -> Answer | None:
    """`|x| < a` as `-a < x < a`, and `|x| > a` as what is left of the line."""
    found = _ABSOLUTE.fullmatch(text)
    if not found:
        return None
    name, sign, edge = found.groups()
    if sign in ("<", r"\le"):
        return take_apart(f"-({edge}) {sign} {name} {sign} {edge}")
    other = {">": "<", r"\ge": r"\le"}[sign]
    return take_apart(f"{name} {other} -({edge}) or {name} {sign} {edge}")


def _inequality(text: str) -> Answer | None:
    """An interval, from `a < x <= b` or `x > a`; anything else with a relation in it stays one term."""
    parts = split(text, _RELATION)
    if len(parts) not in (2, 3):
        return None
    signs = _RELATION.findall(text)
    names = [part for part in parts if re.fullmatch(_VARIABLE, part) and part != r"\infty" and part != r"\pi"]
    if len(signs) != len(parts) - 1 or len(names) != 1 or (len(parts) == 3 and parts[1] != names[0]):
        return None
    if r"\ne" in signs:
        edge = parts[1] if parts[0] == names[0] else parts[0]
        return (
            replace(take_apart(rf"(-\infty,{edge}) \cup ({edge},\infty)"), name=names[0]) if len(parts) == 2 else None
        )
    low, high = ("(", r"-\infty"), (")", r"\infty")
    for left, sign, right in zip(parts, signs, parts[1:]):
        is_less = sign in ("<", r"\le")
        is_open = sign in "<>"
        if (left == names[0]) == is_less:
            high = (")" if is_open else "]", right if is_less else left)
        else:
            low = ("(" if is_open else "[", left if is_less else right)
    ends = (take_apart(low[1]), take_apart(high[1]))
    return Answer("interval", text, ends, low[0] + high[0], names[0])


def _equation(text: str) -> Answer | None:
    sides = split(text, EQUALS)
    if len(sides) < 2 or not all(sides):
        return None
    if _NAMES.fullmatch(sides[0]):
        return take_apart(sides[-1])
    if _NAME.fullmatch(sides[0]):
        return replace(take_apart(sides[-1]), name=re.sub(r"\\text\{\s*([^{}]*?)\s*\}|\s", r"\1", sides[0]))
    return Answer("equation", text, (Answer("term", sides[0]), Answer("term", sides[-1])))


def _brackets(text: str) -> Answer | None:
    for opening, ending in ((r"\{", r"\}"), (r"\langle", r"\rangle"), ("(", ""), ("[", "")):
        if not text.startswith(opening):
            continue
        if ending:
            is_whole = text.endswith(ending) and (opening != r"\{" or closing(text, 1) == len(text) - 1)
            inner = text[len(opening) : len(text) - len(ending)]
        else:
            is_whole, inner = closing(text, 0) == len(text) - 1, text[1:-1]
        if is_whole and inner.strip():
            return _bracketed(text, opening, inner)
    return None


def _bracketed(text: str, opening: str, inner: str) -> Answer | None:
    if opening == r"\{":
        if found := _BUILDER.fullmatch(inner.strip()):
            return take_apart(found[1])
        content = take_apart(inner)
        return Answer("set", text, content.parts if content.kind == "list" else (content,))
    content = _items(inner) or take_apart(inner)  # within brackets, 1,234 are two
    if content.kind != "list":
        # (5) is 5, and ((1,2)) is (1,2); [5] may be a floor.
        return content if opening == "(" or content.kind == "matrix" else None
    brackets = text[0] + text[-1]
    if len(content.parts) == 2 and brackets in ("()", "(]", "[)", "[]"):
        return Answer("interval", text, content.parts, brackets)
    return Answer("tuple", text, content.parts)


def _matrix(text: str) -> Answer | None:
    found = _MATRIX.fullmatch(text)
    if not found:
        return None
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", found[2]) if row.strip()]
    parsed = [Answer("tuple", row, tuple(map(take_apart, row.split("&")))) for row in rows]
    return Answer("matrix", text, tuple(parsed))
