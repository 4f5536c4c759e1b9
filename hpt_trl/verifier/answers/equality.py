r"""Equality of two answers: structures here, terms in `terms.py`.

Tuples are ordered, sets are not, and an interval includes or excludes each endpoint. An answer is one value: what holds
several candidates, or cannot be read completely, is not right. `leniency.py` lists all exceptions.
"""

import re
from collections.abc import Sequence

import sympy

from hpt_trl.verifier.answers.boxes import gold_content
from hpt_trl.verifier.answers.conditions import same_condition
from hpt_trl.verifier.answers.names import same_name, with_argument_of
from hpt_trl.verifier.answers.normalization import clean, depth, squeezed
from hpt_trl.verifier.answers.numbers import number
from hpt_trl.verifier.answers.structure import Answer, parse_answer
from hpt_trl.verifier.answers.terms import EMPTY, is_rounding, is_term, parsed, same_term, same_value, words_of
from hpt_trl.verifier.answers.values import SYMPY_ERRORS, proportional
from hpt_trl.verifier.grader import Verdict

_MAX_DEPTH = 30  # the deepest of 2,718 benchmark answers has 4 levels; parsing time doubles with each level
_COLLECTIONS = frozenset({"set", "list", "union"})
_ORDERED = frozenset({"tuple", "interval"})
_NUMBER_SETS = {
    r"\mathbb{R}": sympy.S.Reals, r"\mathbb{Z}": sympy.S.Integers, r"\mathbb{N}": sympy.S.Naturals,
    r"\mathbb{Q}": sympy.S.Rationals,
}  # fmt: skip


def judge(answer: str, gold: str) -> Verdict:
    r"""Compare the content of a completion's box with a gold answer (plain, in dollars, or boxed).

    Runs in this process, without limits; `verdicts.judge` limits time and memory.

    Example:
        >>> pairs = [(r"\frac{1}{2}", "0.5"), ("50\\%", "1/2"), ("(1, 2)", r"\{1, 2\}"), ("[0, 1)", "[0, 1]")]
        >>> [str(judge(answer, gold)) for answer, gold in pairs]
        ['right', 'right', 'wrong', 'wrong']
    """
    gold = clean(gold_content(gold))
    answer = clean(answer)
    if not _is_parseable(gold):
        return Verdict.UNPARSEABLE_GOLD
    if not _is_parseable(answer):
        return Verdict.UNPARSEABLE_ANSWER
    try:
        parsed_gold, parsed_answer = parse_answer(gold), parse_answer(answer)
        if same(parsed_gold, parsed_answer):
            return Verdict.RIGHT
        is_parseable = parsed_answer.kind != "term" or is_term(parsed_answer.text)
        return Verdict.WRONG if is_parseable else Verdict.UNPARSEABLE_ANSWER
    except SYMPY_ERRORS:  # includes the recursion error for hundreds of nested brackets
        return Verdict.UNPARSEABLE_ANSWER


def _is_parseable(text: str) -> bool:
    """Whether the text has content and balanced braces, and its brackets are not nested too deeply."""
    braces = text.replace(r"\{", "(").replace(r"\}", ")")
    is_empty_set = squeezed(text) == r"\{\}"
    is_balanced = braces.count("{") == braces.count("}")
    return (any(map(str.isalnum, text)) or is_empty_set) and is_balanced and depth(text) <= _MAX_DEPTH


def same(gold: Answer, answer: Answer) -> bool:
    """Whether two answers are equal: names and conditions, then structures, then term by term."""
    if gold.name and answer.name and not same_name(gold.name, answer.name):
        renamed = _with_argument_of(answer, gold.name)
        if renamed is None:
            return False
        answer = renamed
    if not same_condition(gold.condition, answer.condition, f"{gold.name} {gold.text} {answer.text}"):
        return False
    if gold.domain != answer.domain:
        return False
    values = _values(gold), _values(answer)
    return any(_same_structure(left, right) for left in values[0] for right in values[1])


def _with_argument_of(answer: Answer, gold_name: str) -> Answer | None:
    """`f(t)=t+1` as `f(x)=x+1`; None if the names differ elsewhere, or the value has an `x` of its own."""
    arguments = with_argument_of(answer.name, gold_name)
    if arguments is None or re.search(rf"(?<![a-zA-Z\\]){arguments[1]}(?![a-zA-Z])", answer.text):
        return None
    old, new = arguments
    return parse_answer(re.sub(rf"(?<![a-zA-Z\\]){old}(?![a-zA-Z])", new, answer.text))


def _values(answer: Answer) -> Sequence[Answer]:
    r"""The value that an answer states: `12` of `3 + 9 = 12`, both of `\pi \approx 3.14`; none if it is not true."""
    if answer.kind == "chain":
        sides = [parse_answer(part.text) for part in answer.parts]
        is_true = all(_same_structure(side, sides[-1]) for side in sides[:-1])
        return sides[-1:] if is_true else []
    if answer.kind == "rounded":
        exact, rounded = answer.parts
        return answer.parts if is_rounding(exact.text, rounded.text) else []
    return [answer]


def _same_structure(gold: Answer, answer: Answer) -> bool:
    if squeezed(gold.text) == squeezed(answer.text) and gold.kind == answer.kind:
        return True
    kinds = {gold.kind, answer.kind}
    if kinds == {"term"}:
        return same_term(gold.text, answer.text)
    if "equation" in kinds:
        return gold.kind == "equation" and _same_equation(gold, answer)
    if kinds & {"ratio", "clock"}:
        return _same_ratio(gold, answer)
    if kinds == {"congruence"}:
        return _equal_in_order(gold.parts, answer.parts)
    if kinds == {"cases"}:
        return _equal_in_any_order(gold.parts, answer.parts)
    return _same_elements(gold, answer, kinds) or _same_set(gold, answer)


def _same_elements(gold: Answer, answer: Answer, kinds: set[str]) -> bool:
    if kinds == {"interval"}:
        return gold.brackets == answer.brackets and _equal_in_order(gold.parts, answer.parts)
    if kinds == {"matrix"}:
        return _equal_in_order(gold.parts, answer.parts)
    if "names" in kinds:
        others = kinds - {"names"}
        return others <= {"list", *_ORDERED} and _round(gold, answer) and _same_names(gold, answer, others)
    if kinds <= _ORDERED:
        return _round(gold, answer) and _equal_in_order(gold.parts, answer.parts)
    if kinds <= _COLLECTIONS:
        parts = [_distinct(part.parts) if kinds != {"list"} else part.parts for part in (gold, answer)]
        return _equal_in_any_order(*parts)
    if kinds <= {"list", *_ORDERED} and not any(part.kind in _ORDERED for part in (*gold.parts, *answer.parts)):
        # One of them omits the brackets; the order still matters.
        return _round(gold, answer) and _equal_in_order(gold.parts, answer.parts)
    if "matrix" in kinds and kinds <= {"matrix", *_ORDERED}:
        matrix, vector = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        return _round(vector) and _equal_in_order(_vector(matrix), vector.parts)
    if kinds & _COLLECTIONS:
        # A list of equal values, and the set of one value, is this value.
        collection, other = (gold, answer) if gold.kind in _COLLECTIONS else (answer, gold)
        members = collection.parts
        if words_of(members[0].text) == EMPTY:  # the set of the empty set is not empty
            return False
        return all(same(member, other) if collection is gold else same(other, member) for member in members)
    return False


def _round(*answers: Answer) -> bool:
    return all(answer.brackets in ("", "()") for answer in answers)


def _same_names(gold: Answer, answer: Answer, others: set[str]) -> bool:
    if others == {"list"} and any("_" in part.name for part in (*gold.parts, *answer.parts)):
        return _equal_in_any_order(gold.parts, answer.parts)  # x_1 = 2, x_2 = 3
    return _equal_in_order(gold.parts, answer.parts)


def _vector(matrix: Answer) -> tuple[Answer, ...]:
    if len(matrix.parts) == 1:
        return matrix.parts[0].parts
    return tuple(row.parts[0] for row in matrix.parts) if all(len(row.parts) == 1 for row in matrix.parts) else ()


def _equal_in_order(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


def _equal_in_any_order(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    if len(golds) != len(answers):
        return False
    unmatched = list(answers)
    for gold in golds:
        match = next((index for index, answer in enumerate(unmatched) if same(gold, answer)), None)
        if match is None:
            return False
        del unmatched[match]
    return True


def _distinct(answers: Sequence[Answer]) -> list[Answer]:
    distinct: list[Answer] = []
    for answer in answers:
        if not any(same(other, answer) for other in distinct):
            distinct.append(answer)
    return distinct


def _same_ratio(gold: Answer, answer: Answer) -> bool:
    """Whether two ratios are equal; a gold answer that may be a time of day is answered by the same time only."""
    if gold.kind == "clock" or (answer.kind == "clock" and gold.kind != "ratio"):
        times = [[number(part.text) for part in side.parts] for side in (gold, answer)]
        return times[0] == times[1] and None not in times[0]
    sides = [
        [part.text for part in side.parts] if side.kind in ("ratio", "clock") else [side.text]
        for side in (gold, answer)
    ]
    if any(len(side) > 1 and same_value(part, "0") for side in sides for part in side):
        return False
    if len(sides[0]) == len(sides[1]):
        (first, *rest), (other, *others) = sides
        return all(same_value(rf"({first}) \cdot ({b})", rf"({other}) \cdot ({a})") for a, b in zip(rest, others))
    if {len(side) for side in sides} != {1, 2} or {"ratio", "clock", "term"} < {gold.kind, answer.kind}:
        return False
    values = [rf"\frac{{{side[0]}}}{{{side[1]}}}" if len(side) == 2 else side[0] for side in sides]
    return same_value(*values)


def _same_equation(gold: Answer, answer: Answer) -> bool:
    """Whether two equations are equivalent: the difference of the sides of one is a multiple of the other's."""
    if answer.kind == "equation":
        sides = [*gold.parts, *answer.parts]
    elif answer.name and answer.kind == "term":
        sides = [*gold.parts, Answer("term", answer.name), answer]
    else:
        return False
    left, right, other_left, other_right = (parsed(side.text) for side in sides)
    if left is None or right is None or other_left is None or other_right is None:
        return False
    return proportional(left - right, other_left - other_right)


def _same_set(gold: Answer, answer: Answer) -> bool:
    """Whether two sets in different notation are equal, such as a union of intervals and a difference."""
    if gold.kind == answer.kind or not {gold.kind, answer.kind} & {"difference", "union", "interval", "set"}:
        return gold.kind in ("difference", "union") and _set(gold) is not None and _set(gold) == _set(answer)
    left, right = _set(gold), _set(answer)
    return left is not None and left == right


def _set(answer: Answer) -> sympy.Set | None:
    if answer.kind == "term":
        return _NUMBER_SETS.get(squeezed(answer.text))
    if answer.kind == "interval":
        low, high = (parsed(part.text) for part in answer.parts)
        if low is None or high is None or (low < high) != sympy.true:
            return None
        return sympy.Interval(low, high, answer.brackets[0] == "(", answer.brackets[1] == ")")
    if answer.kind == "set":
        elements = [parsed(part.text) for part in answer.parts]
        return None if None in elements else sympy.FiniteSet(*elements)
    if answer.kind in ("union", "difference"):
        sets = [_set(part) for part in answer.parts]
        if None in sets:
            return None
        return sympy.Union(*sets) if answer.kind == "union" else sympy.Complement(*sets)
    return None
