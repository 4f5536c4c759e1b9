"""Structure of an answer: lists, sets, tuples, intervals, matrices, relations, and the terms they consist of."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hpt_trl.verifier.answers.conditions import split_condition
from hpt_trl.verifier.answers.names import (
    VARIABLE,
    is_name,
    is_ordered,
    is_variable,
    mentions,
    normal_name,
    order_of_names,
    tuple_names,
)
from hpt_trl.verifier.answers.normalization import closing, split, squeezed


@dataclass(frozen=True)
class Answer:
    """One parsed answer.

    `kind` is "term", or the kind of structure whose elements are in `parts`:

    - "set", "list", "tuple", "names" (values with different names, sorted by name), "union", "difference"
    - "matrix" and "cases" (of rows, which are tuples), "interval" (two ends; `brackets` says which are included)
    - "ratio", "clock" (hours and minutes), "congruence" (two sides and the modulus)
    - "equation" (two sides), "chain" (all sides but the name of `a = b = c`), "rounded" (exact and rounded value)
    - "relation": anything else with a relation sign, without parts

    `name` is what the value is assigned to, `condition` what is said about its variables. `domain` is the set that the
    elements of a set come from, if it is not the real numbers.
    """

    kind: str
    text: str
    parts: tuple["Answer", ...] = ()
    brackets: str = ""
    name: str = ""
    condition: str = ""
    domain: str = ""


_OR = re.compile(r"(?:[,;]\s*)?(?<![a-zA-Z\\])or(?![a-zA-Z])|;")
_ITEMS = re.compile(r"[,;]\s*(?:and\b|or\b)?|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_THOUSANDS = re.compile(r"([^,()\[\]{}]*?(?<!\d))(\d{1,3}(?:,\d{3})+)(?!\d)([^,]*)")
_UNION = re.compile(r"\\cup(?![a-zA-Z])|(?<=[)\]}])\s*[Uu]\s*(?=[(\[\\])")
_DIFFERENCE = re.compile(r"\\setminus(?![a-zA-Z])")
_SIGN = re.compile(r"\\(?:ne|le|ge|approx|equiv|in)(?![a-zA-Z])|<|>|=")
_COLON = re.compile(":")
_TIME_OF_DAY = re.compile(r"\d:\d\d *(?:\\text\{ *)?[aApP]\.?[mM]")
_CLOCK = re.compile(r"[01]?\d:[0-5]\d|2[0-4]:[0-5]\d")
_MODULUS = re.compile(r"\(?\s*\\p?mod\s*\{?([^{}()]+)\}?\s*\)?$")
_DISTANCE = re.compile(rf"\|\s*({VARIABLE})\s*\|")
_BUILDER = re.compile(rf"({VARIABLE})(?:\s*\\in\s*(\S+?))?\s*[|:]\s*(.+)", re.DOTALL)
_ENVIRONMENT = re.compile(
    r"(\\\{)?([^{}=]*|\\frac\{[^{}]*\}\{[^{}]*\})\s*\\begin\{([pbBv]?matrix|array|cases|aligned)\}"
    r"(?:\{[lcr| ]*\})?(.*)\\end\{\3\}",
    re.DOTALL,
)
_COLUMN = re.compile("&")
_IF = re.compile(r"^(?:\\text\{\s*(?:if|for|when)\s*\}|(?:if|for|when) )")
_TRANSPOSE = re.compile(r"(.*[)\]}])\s*\^\s*\{?\s*(?:T|\\top|\\text\{T\})\s*\}?", re.DOTALL)
_OUTSIDE_IN = re.compile(r"([\[\](])([^,;\[\]]+)[,;]([^,;\[\]]+)([\[\])])")
_INTEGER = re.compile(r"-?\d{1,9}")
_MAX_ELEMENTS = 1000


def parse_answer(text: str) -> Answer:
    """Parse the structure of a normalized answer."""
    text = text.strip()
    value, condition = split_condition(text)
    if condition:
        return replace(parse_answer(value), condition=condition)
    if match := _THOUSANDS.fullmatch(text):
        text = match[1] + match[2].replace(",", "") + match[3]
    for parse in (
        _outside_in_interval, _items, _union, _difference, _relation, _plus_minus, _transpose, _environment, _brackets,
        _ratio,
    ):  # fmt: skip
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
    parts = [part for part in split(text, _OR)[0] if part]
    if len(parts) < 2:
        parts = [part for part in split(text, _ITEMS)[0] if part]
    if len(parts) < 2:
        return None
    answers = _flat(tuple(map(parse_answer, _expanded(parts))), "list")
    if "and" not in text and all(part.kind == "interval" and part.name for part in answers):
        return Answer("union", text, _flat(answers, "union"))
    if len(answers) == 2 and (intersection := _intersection(*answers)):
        return intersection
    names = [part.name for part in answers]
    if len(set(names)) == len(names) and all(names):
        return Answer("names", text, tuple(sorted(answers, key=lambda part: order_of_names(part.name))))
    if set(names[1:]) == {""} and names[0]:  # x=1,2
        answers = tuple(replace(part, name=names[0]) for part in answers)
    return Answer("list", text, answers)


def _expanded(items: Sequence[str]) -> Sequence[str]:
    r"""The items with `1, 2, \ldots, 10` written out."""
    if len(items) < 4 or squeezed(items[-2]) != r"\ldots" or not all(map(_INTEGER.fullmatch, [*items[:-2], items[-1]])):
        return items
    numbers = [int(item) for item in items[:-2]]
    step, last = numbers[1] - numbers[0], int(items[-1])
    is_regular = step and all(b - a == step for a, b in pairwise(numbers)) and (last - numbers[0]) % step == 0
    count = (last - numbers[0]) // step + 1 if is_regular else 0
    return [str(numbers[0] + step * n) for n in range(count)] if len(numbers) < count <= _MAX_ELEMENTS else items


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
    parts, _ = split(text, _UNION)
    if len(parts) < 2 or split(text, _SIGN)[1]:
        return None
    return Answer("union", text, _flat(tuple(map(parse_answer, parts)), "union"))


def _difference(text: str) -> Answer | None:
    parts, _ = split(text, _DIFFERENCE)
    return Answer("difference", text, tuple(map(parse_answer, parts))) if len(parts) == 2 and all(parts) else None


def _plus_minus(text: str) -> Answer | None:
    if r"\pm" not in text or text.startswith((r"\{", "(", "[")):
        return None
    plus, minus = text.replace(r"\pm", "+").replace(r"\mp", "-"), text.replace(r"\pm", "-").replace(r"\mp", "+")
    return Answer("list", text, (parse_answer(plus.removeprefix("+")), parse_answer(minus)))


def _relation(text: str) -> Answer | None:
    sides, signs = split(text, _SIGN)
    if not signs:
        return None
    kinds = set(signs)
    if not all(sides):
        return Answer("relation", text)
    if kinds <= {"=", r"\approx"}:
        return _equation(text, sides, signs)
    if kinds == {r"\in"} and len(sides) == 2 and is_name(sides[0]):
        return replace(parse_answer(sides[1]), name=normal_name(sides[0]))
    if kinds == {r"\equiv"} and len(sides) == 2 and (modulus := _MODULUS.search(sides[1])):
        parts = (sides[0], sides[1][: modulus.start()], modulus[1])
        return Answer("congruence", text, tuple(map(parse_answer, parts)))
    return _inequality(text, sides, signs) or Answer("relation", text)


def _equation(text: str, sides: Sequence[str], signs: Sequence[str]) -> Answer:
    if len(sides) == 2 and signs[0] == "=" and (match := _DISTANCE.fullmatch(sides[0])):
        return parse_answer(rf"{match[1]} = \pm {sides[1]}")
    if len(sides) == 2 and signs[0] == "=" and is_variable(sides[1]) and not re.search("[a-zA-Z]", sides[0]):
        sides = (sides[1], sides[0])  # 3 = x
    name = ""
    if is_name(sides[0]) and not (is_variable(sides[0]) and any(mentions(side, sides[0]) for side in sides[1:])):
        name, sides, signs = sides[0], sides[1:], signs[1:]
    if not signs:
        return _assigned(name, sides[0])
    if r"\approx" in signs:
        parts = (sides[0], sides[-1]) if len(sides) == 2 else ()
        kind = "rounded" if parts else "relation"
        return Answer(kind, text, tuple(Answer("term", part) for part in parts), name=normal_name(name))
    terms = tuple(Answer("term", side) for side in sides)
    if not name and len(sides) == 2 and any(re.search(r"(?<!\\)(?<![a-zA-Z])[a-zA-Z]", side) for side in sides):
        return Answer("equation", text, terms)
    return Answer("chain", text, terms, name=normal_name(name))


def _assigned(name: str, value: str) -> Answer:
    """A named value; the names of `(x, y) = (1, 2)` belong to its elements."""
    if ":" in name and len(parts := split(value, _COLON)[0]) > 1:
        return Answer("ratio", value, tuple(map(parse_answer, parts)), name=normal_name(name))
    answer = parse_answer(value)
    names = tuple_names(name)
    if not names or len(names) != len(answer.parts) or answer.kind not in ("interval", "tuple", "list"):
        return replace(answer, name="" if names else normal_name(name))
    if answer.kind == "list" and not is_ordered(names):
        return Answer("relation", f"{name}={value}")
    elements = [replace(part, name=part_name) for part, part_name in zip(answer.parts, names)]
    elements.sort(key=lambda element: order_of_names(element.name))
    return Answer("names", value if is_ordered(names) else f"{name}={value}", tuple(elements))


def _inequality(text: str, sides: Sequence[str], signs: Sequence[str]) -> Answer | None:
    """An interval, from `a < x <= b`, `x > a` or `|x| < a`."""
    if len(sides) == 2 and (match := _DISTANCE.fullmatch(sides[0])) and signs[0] in ("<", ">", r"\le", r"\ge"):
        return _distance(match[1], signs[0], sides[1])
    names = [side for side in sides if is_name(side) and re.search("[a-zA-Z]", side.replace(r"\infty", ""))]
    if len(names) != 1 or len(sides) > 3 or (len(sides) == 3 and sides[1] != names[0]):
        return None
    name = normal_name(names[0])
    if r"\ne" in signs:
        if len(sides) != 2:
            return None
        excluded = sides[1] if sides[0] == names[0] else sides[0]
        return replace(parse_answer(rf"(-\infty,{excluded}) \cup ({excluded},\infty)"), name=name)
    low, high = ("(", r"-\infty"), (")", r"\infty")
    for left, sign, right in zip(sides, signs, sides[1:]):
        is_less, is_open = sign in ("<", r"\le"), sign in "<>"
        if sign not in ("<", ">", r"\le", r"\ge"):
            return None
        if (left == names[0]) == is_less:
            high = (")" if is_open else "]", right if is_less else left)
        else:
            low = ("(" if is_open else "[", left if is_less else right)
    return Answer("interval", text, (parse_answer(low[1]), parse_answer(high[1])), low[0] + high[0], name)


def _distance(name: str, sign: str, bound: str) -> Answer:
    """`|x| < a` as `-a < x < a`, and `|x| > a` as `x < -a or x > a`."""
    if sign in ("<", r"\le"):
        return parse_answer(f"-({bound}) {sign} {name} {sign} {bound}")
    flipped = {">": "<", r"\ge": r"\le"}[sign]
    return parse_answer(f"{name} {flipped} -({bound}) or {name} {sign} {bound}")


def _brackets(text: str) -> Answer | None:
    if text.startswith(r"\{") and text.endswith(r"\}") and closing(text, 1) == len(text) - 1:
        return _set(text, text[2:-2]) if text[2:-2].strip() else None
    if not text.startswith(("(", "[")) or closing(text, 0) != len(text) - 1 or not text[1:-1].strip():
        return None
    inner = text[1:-1]
    content = _content(inner)
    if content.kind not in ("list", "names"):
        # (5) is 5, and ((1,2)) is (1,2); [5] may be a floor.
        return content if text[0] == "(" or content.kind == "matrix" else None
    brackets = text[0] + text[-1]
    if len(content.parts) == 2 and brackets in ("()", "(]", "[)", "[]"):
        return Answer("interval", text, content.parts, brackets)
    return Answer("tuple", text, content.parts, brackets)


def _set(text: str, inner: str) -> Answer:
    match = _BUILDER.fullmatch(inner.strip())
    if match and (split(inner, _SIGN)[1] or "|" in inner):
        domain = match[2] or ""
        answer = parse_answer(match[3])
        return replace(answer, name="", domain="" if domain == r"\mathbb{R}" else domain)
    content = _content(inner)
    return Answer("set", text, content.parts if content.kind in ("list", "names") else (content,))


def _content(inner: str) -> Answer:
    """What is in brackets, where 1,234 is two numbers."""
    return (_items(inner) if split(inner, _ITEMS)[1] else None) or parse_answer(inner)


def _environment(text: str) -> Answer | None:
    match = _ENVIRONMENT.fullmatch(text)
    if not match:
        return None
    brace, factor, name, content = match.groups()
    is_system = brace is not None or name in ("cases", "aligned")
    rows = [row.strip().strip(",;.") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", content) if row.strip()]
    if factor.strip():
        rows = ["&".join(rf"({factor}) \cdot ({cell})" for cell in row.split("&")) for row in rows]
    if is_system and not any("&" in row.replace("&=", "=") for row in rows):
        return parse_answer(", ".join(row.replace("&", "") for row in rows))  # a system of equations
    cells = ([_IF.sub("", cell).strip(" ,") for cell in split(row, _COLUMN)[0]] for row in rows)
    parsed = (Answer("tuple", "&".join(row), tuple(map(parse_answer, row)), "()") for row in cells)
    return Answer("cases" if is_system else "matrix", text, tuple(parsed))


def _transpose(text: str) -> Answer | None:
    match = _TRANSPOSE.fullmatch(text)
    content = parse_answer(match[1]) if match else None
    if content is None or content.kind not in ("matrix", "tuple", "interval"):
        return None
    rows = [row.parts for row in content.parts] if content.kind == "matrix" else [content.parts]
    if len({len(row) for row in rows}) != 1:
        return None
    columns = (Answer("tuple", "", tuple(column), "()") for column in zip(*rows))
    return Answer("matrix", text, tuple(columns))


def _ratio(text: str) -> Answer | None:
    parts, _ = split(text, _COLON)
    if len(parts) < 2 or not all(parts) or _TIME_OF_DAY.search(text):
        return None
    kind = "clock" if _CLOCK.fullmatch(re.sub(r"\s", "", text)) else "ratio"
    return Answer(kind, text, tuple(Answer("term", part) for part in parts))
