"""Structure of an answer: lists, sets, tuples, intervals, matrices, equations, and the terms they consist of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpt_trl.verifier.answers.normalization import closing, split


@dataclass(frozen=True)
class Answer:
    """One parsed answer.

    `kind` is "term", or the kind of structure whose elements are in `parts`: "set", "list", "union", "tuple", "matrix"
    (of rows), "interval" (two endpoints; `brackets` says which are included) or "equation" (two sides). `name` is the
    left side of an assignment.
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


def parse_answer(text: str) -> Answer:
    """Parse the structure of a normalized answer."""
    text = text.strip()
    if match := _THOUSANDS.fullmatch(text):
        text = match[1] + match[2].replace(",", "") + match[3]
    for parse in (
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
        answer = parse(text)
        if answer is not None:
            return answer
    return Answer("term", text)


def _outside_in_interval(text: str) -> Answer | None:
    # ]1,2[ is a common European notation for (1,2).
    match = _OUTSIDE_IN.fullmatch(text)
    if not match or not (match[1] == "]" or match[4] == "["):
        return None
    brackets = ("[" if match[1] == "[" else "(") + ("]" if match[4] == "]" else ")")
    return Answer("interval", text, (parse_answer(match[2]), parse_answer(match[3])), brackets)


def _items(text: str) -> Answer | None:
    parts = [part for part in split(text, _ITEMS) if part]
    if len(parts) < 2:
        return None
    answers = tuple(map(parse_answer, parts))
    if "and" not in text and all(part.kind == "interval" and _RELATION.search(part.text) for part in answers):
        return Answer("union", text, _flat(answers, "union"))
    if len(answers) == 2 and (intersection := _intersection(*answers)):
        return intersection
    names = {part.name for part in answers if part.name}
    if len(names) == 1:  # x=1,2
        answers = tuple(replace(part, name=next(iter(names))) for part in answers)
    return Answer("list", text, _flat(answers, "list"))


def _intersection(first: Answer, second: Answer) -> Answer | None:
    """`x > a and x < b` as `a < x < b`."""
    if first.kind != "interval" or second.kind != "interval" or not first.name or first.name != second.name:
        return None
    below, above = (first, second) if first.parts[0].text == r"-\infty" else (second, first)
    if below.parts[0].text != r"-\infty" or above.parts[1].text != r"\infty":
        return None
    endpoints = (above.parts[0], below.parts[1])
    brackets = above.brackets[0] + below.brackets[1]
    return Answer("interval", f"{above.text} and {below.text}", endpoints, brackets, first.name)


def _flat(answers: Sequence[Answer], kind: str) -> tuple[Answer, ...]:
    return tuple(part for answer in answers for part in (answer.parts if answer.kind == kind else (answer,)))


def _union(text: str) -> Answer | None:
    parts = split(text, _UNION)
    return Answer("union", text, _flat(tuple(map(parse_answer, parts)), "union")) if len(parts) > 1 else None


def _plus_minus(text: str) -> Answer | None:
    if r"\pm" not in text or text.startswith(r"\{") or len(split(text, EQUALS)) > 1:
        return None
    plus, minus = text.replace(r"\pm", "+").replace(r"\mp", "-"), text.replace(r"\pm", "-").replace(r"\mp", "+")
    return Answer("list", text, (parse_answer(plus.removeprefix("+")), parse_answer(minus)))


def _member(text: str) -> Answer | None:
    match = _MEMBER.fullmatch(text)
    return replace(parse_answer(match[2]), name=match[1]) if match else None


def _distance(text: str) -> Answer | None:
    """`|x| < a` as `-a < x < a`, and `|x| > a` as `x < -a or x > a`."""
    match = _ABSOLUTE.fullmatch(text)
    if not match:
        return None
    name, sign, bound = match.groups()
    if sign in ("<", r"\le"):
        return parse_answer(f"-({bound}) {sign} {name} {sign} {bound}")
    flipped = {">": "<", r"\ge": r"\le"}[sign]
    return parse_answer(f"{name} {flipped} -({bound}) or {name} {sign} {bound}")


def _inequality(text: str) -> Answer | None:
    """An interval, from `a < x <= b` or `x > a`; any other text with a relation stays one term."""
    parts = split(text, _RELATION)
    if len(parts) not in (2, 3):
        return None
    signs = _RELATION.findall(text)
    names = [part for part in parts if re.fullmatch(_VARIABLE, part) and part != r"\infty" and part != r"\pi"]
    if len(signs) != len(parts) - 1 or len(names) != 1 or (len(parts) == 3 and parts[1] != names[0]):
        return None
    if r"\ne" in signs:
        if len(parts) != 2:
            return None
        excluded = parts[1] if parts[0] == names[0] else parts[0]
        return replace(parse_answer(rf"(-\infty,{excluded}) \cup ({excluded},\infty)"), name=names[0])
    low, high = ("(", r"-\infty"), (")", r"\infty")
    for left, sign, right in zip(parts, signs, parts[1:]):
        is_less = sign in ("<", r"\le")
        is_open = sign in "<>"
        if (left == names[0]) == is_less:
            high = (")" if is_open else "]", right if is_less else left)
        else:
            low = ("(" if is_open else "[", left if is_less else right)
    endpoints = (parse_answer(low[1]), parse_answer(high[1]))
    return Answer("interval", text, endpoints, low[0] + high[0], names[0])


def _equation(text: str) -> Answer | None:
    sides = split(text, EQUALS)
    if len(sides) < 2 or not all(sides):
        return None
    if _NAMES.fullmatch(sides[0]):
        return parse_answer(sides[-1])
    if _NAME.fullmatch(sides[0]):
        return replace(parse_answer(sides[-1]), name=re.sub(r"\\text\{\s*([^{}]*?)\s*\}|\s", r"\1", sides[0]))
    return Answer("equation", text, (Answer("term", sides[0]), Answer("term", sides[-1])))


def _brackets(text: str) -> Answer | None:
    for opening, ending in ((r"\{", r"\}"), (r"\langle", r"\rangle"), ("(", ""), ("[", "")):
        if not text.startswith(opening):
            continue
        if ending:
            encloses_text = text.endswith(ending) and (opening != r"\{" or closing(text, 1) == len(text) - 1)
            inner = text[len(opening) : len(text) - len(ending)]
        else:
            encloses_text, inner = closing(text, 0) == len(text) - 1, text[1:-1]
        if encloses_text and inner.strip():
            return _bracketed(text, opening, inner)
    return None


def _bracketed(text: str, opening: str, inner: str) -> Answer | None:
    if opening == r"\{":
        if match := _BUILDER.fullmatch(inner.strip()):
            return parse_answer(match[1])
        content = parse_answer(inner)
        return Answer("set", text, content.parts if content.kind == "list" else (content,))
    content = _items(inner) or parse_answer(inner)  # within brackets, 1,234 is two numbers
    if content.kind != "list":
        # (5) is 5, and ((1,2)) is (1,2); [5] may be a floor.
        return content if opening == "(" or content.kind == "matrix" else None
    brackets = text[0] + text[-1]
    if len(content.parts) == 2 and brackets in ("()", "(]", "[)", "[]"):
        return Answer("interval", text, content.parts, brackets)
    return Answer("tuple", text, content.parts)


def _matrix(text: str) -> Answer | None:
    match = _MATRIX.fullmatch(text)
    if not match:
        return None
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", match[2]) if row.strip()]
    parsed = [Answer("tuple", row, tuple(map(parse_answer, row.split("&")))) for row in rows]
    return Answer("matrix", text, tuple(parsed))
