r"""Equality of two answers: structures here, terms in `terms.py`.

math-verify alone treats `(1,2)` and `\{1,2\}` as equal, and reads `x=3` and `1,2` in a plain gold answer as 3 and 1.2.
Here tuples are ordered, sets are not, and an interval includes or excludes each endpoint.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hpt_trl.verifier.answers.normalization import clean, depth, last_boxed
from hpt_trl.verifier.answers.structure import Answer, parse_answer
from hpt_trl.verifier.answers.terms import (
    EMPTY,
    SYMPY_ERRORS,
    is_term,
    same_equation,
    same_set,
    same_term,
    squeezed,
    words_of,
)
from hpt_trl.verifier.grader import Verdict

_MAX_DEPTH = 30  # the deepest of 2,718 benchmark answers has 4 levels; parsing time doubles with each level
_COLLECTIONS = ("set", "list", "union")


def judge(answer: str, gold: str) -> Verdict:
    r"""Compare the content of a completion's box with a gold answer (plain, in dollars, or boxed).

    Runs in this process, without limits; `verdicts.judge` limits time and memory.

    Example:
        >>> pairs = [(r"\frac{1}{2}", "0.5"), ("50\\%", "1/2"), ("(1, 2)", r"\{1, 2\}"), ("[0, 1)", "[0, 1]")]
        >>> [str(judge(answer, gold)) for answer, gold in pairs]
        ['right', 'right', 'wrong', 'wrong']
    """
    gold = clean(last_boxed(gold) or gold)
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
    """Whether two answers are equal: first their structures, then term by term."""
    if gold.name and answer.name:
        answer = _with_argument_of(answer, gold.name)
        if gold.name != answer.name and not _is_value_of(gold.name, answer.name):
            return _same_equation(gold, answer)
    if squeezed(gold.text) == squeezed(answer.text):
        return True
    if "equation" in (gold.kind, answer.kind):
        return _same_with_equation(gold, answer)
    if gold.kind == answer.kind == "term":
        return same_term(gold.text, answer.text)
    return _same_structure(gold, answer) or same_set(gold.text, answer.text)


def _same_structure(gold: Answer, answer: Answer) -> bool:
    kinds = {gold.kind, answer.kind}
    if kinds == {"interval"}:
        return gold.brackets == answer.brackets and _equal_in_order(gold.parts, answer.parts)
    if kinds <= {"tuple", "interval"} or kinds == {"matrix"}:
        return "()" in (gold.brackets or "()") and _equal_in_order(gold.parts, answer.parts)
    if kinds <= set(_COLLECTIONS):
        is_set = "set" in kinds or "union" in kinds
        return _equal_in_any_order(
            _distinct(gold.parts) if is_set else gold.parts, _distinct(answer.parts) if is_set else answer.parts
        )
    if kinds <= {"list", "tuple", "interval"}:
        # One of them omits the brackets; the order still matters.
        return all(part.brackets in ("", "()") for part in (gold, answer)) and _equal_in_order(gold.parts, answer.parts)
    if "matrix" in kinds and kinds <= {"matrix", "tuple", "interval"}:
        matrix, vector = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        return vector.brackets in ("", "()") and _equal_in_order(_vector(matrix), vector.parts)
    if kinds & set(_COLLECTIONS):
        collection, other = (gold, answer) if gold.kind in _COLLECTIONS else (answer, gold)
        members = collection.parts
        if words_of(members[0].text) == EMPTY:  # the set of the empty set is not empty
            return False
        return all(same(member, other) if collection is gold else same(other, member) for member in members)
    return False


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


def _with_argument_of(answer: Answer, name: str) -> Answer:
    """`f(n)=n+1` as `f(x)=x+1`: the name of a function's argument does not matter."""
    new, old = (re.fullmatch(r"(\w+)\((\w)\)", signature) for signature in (name, answer.name))
    if not new or not old or new[1] != old[1] or new[2] == old[2]:
        return answer
    if re.search(rf"(?<![a-zA-Z\\]){new[2]}(?![a-zA-Z])", answer.text):
        return answer
    return replace(parse_answer(re.sub(rf"(?<![a-zA-Z\\]){old[2]}(?![a-zA-Z])", new[2], answer.text)), name=name)


def _is_value_of(name: str, other: str) -> bool:
    """Whether one name is `y` and the other is like `f(x)`: they name the same value."""
    return "y" in (name, other) and any(re.fullmatch(r"\w\(\w\)", candidate) for candidate in (name, other))


def _same_with_equation(gold: Answer, answer: Answer) -> bool:
    if gold.kind == "equation":
        return (answer.kind == "equation" or bool(answer.name)) and _same_equation(gold, answer)
    if gold.name:
        return _same_equation(gold, answer)
    # 2+1=3 counts as 3: the equation is true and ends in the answer.
    left, right = answer.parts
    return same(gold, right) and same(left, right)


def _same_equation(gold: Answer, answer: Answer) -> bool:
    gold_sides, answer_sides = _sides(gold), _sides(answer)
    return gold_sides is not None and answer_sides is not None and same_equation(gold_sides, answer_sides)


def _sides(answer: Answer) -> tuple[str, str] | None:
    if answer.kind == "equation":
        return answer.parts[0].text, answer.parts[1].text
    return (answer.name, answer.text) if answer.name and answer.kind == "term" else None
