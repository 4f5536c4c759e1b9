r"""Are two answers equal? Structures here, terms in `terms.py`.

math-verify alone reads `(1,2)` and `\{1,2\}` as equal, and `x=3` and `1,2` in a plain gold answer as 3 and 1.2. Here
tuples are ordered, sets are not, and intervals keep their ends.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hpt_trl.verifier.answers.spelling import clean, depth, last_boxed
from hpt_trl.verifier.answers.structure import Answer, take_apart
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

_DEEPEST = 30  # the deepest of 2,718 benchmark answers has 4 levels; a parser's time doubles with each
_COLLECTIONS = ("set", "list", "union")


def judge(answer: str, gold: str) -> Verdict:
    r"""Compare the content of a completion's box with a gold answer (plain, in dollars, or boxed).

    In this process, without limits: `rewards.judge` bounds time and memory.

    Example:
        >>> pairs = [(r"\frac{1}{2}", "0.5"), ("50\\%", "1/2"), ("(1, 2)", r"\{1, 2\}"), ("[0, 1)", "[0, 1]")]
        >>> [str(judge(answer, gold)) for answer, gold in pairs]
        ['right', 'right', 'wrong', 'wrong']
    """
    gold = clean(last_boxed(gold) or gold)
    answer = clean(answer)
    if not _is_readable(gold):
        return Verdict.UNPARSEABLE_GOLD
    if not _is_readable(answer):
        return Verdict.UNPARSEABLE_ANSWER
    try:
        wanted, given = take_apart(gold), take_apart(answer)
        if same(wanted, given):
            return Verdict.RIGHT
        return Verdict.WRONG if given.kind != "term" or is_term(given.text) else Verdict.UNPARSEABLE_ANSWER
    except SYMPY_ERRORS:  # also brackets within brackets, by the hundred
        return Verdict.UNPARSEABLE_ANSWER


def _is_readable(text: str) -> bool:
    """Whether anything is said, every brace is closed, and brackets are not nested as no answer's are."""
    braces = text.replace(r"\{", "(").replace(r"\}", ")")
    is_empty_set = squeezed(text) == r"\{\}"
    is_balanced = braces.count("{") == braces.count("}")
    return (any(map(str.isalnum, text)) or is_empty_set) and is_balanced and depth(text) <= _DEEPEST


def same(gold: Answer, answer: Answer) -> bool:
    """Whether two answers are equal, as structures and then term by term."""
    if gold.name and answer.name:
        answer = _renamed(answer, gold.name)
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
        return gold.brackets == answer.brackets and _in_order(gold.parts, answer.parts)
    if kinds <= {"tuple", "interval"} or kinds == {"matrix"}:
        return "()" in (gold.brackets or "()") and _in_order(gold.parts, answer.parts)
    if kinds <= set(_COLLECTIONS):
        is_set = "set" in kinds or "union" in kinds
        return _in_any_order(
            _distinct(gold.parts) if is_set else gold.parts, _distinct(answer.parts) if is_set else answer.parts
        )
    if kinds <= {"list", "tuple", "interval"}:
        # Brackets left out, or put around: the order must hold then.
        return all(each.brackets in ("", "()") for each in (gold, answer)) and _in_order(gold.parts, answer.parts)
    if "matrix" in kinds and kinds <= {"matrix", "tuple", "interval"}:
        matrix, vector = (gold, answer) if gold.kind == "matrix" else (answer, gold)
        return vector.brackets in ("", "()") and _in_order(_vector(matrix), vector.parts)
    if kinds & set(_COLLECTIONS):
        collection, other = (gold, answer) if gold.kind in _COLLECTIONS else (answer, gold)
        members = collection.parts
        if words_of(members[0].text) == EMPTY:  # the set of the empty set is not empty
            return False
        return all(same(each, other) if collection is gold else same(other, each) for each in members)
    return False


def _vector(matrix: Answer) -> tuple[Answer, ...]:
    if len(matrix.parts) == 1:
        return matrix.parts[0].parts
    return tuple(row.parts[0] for row in matrix.parts) if all(len(row.parts) == 1 for row in matrix.parts) else ()


def _in_order(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    return len(golds) == len(answers) and all(map(same, golds, answers))


def _in_any_order(golds: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    if len(golds) != len(answers):
        return False
    left = list(answers)
    for gold in golds:
        found = next((index for index, each in enumerate(left) if same(gold, each)), None)
        if found is None:
            return False
        del left[found]
    return True


def _distinct(answers: Sequence[Answer]) -> list[Answer]:
    kept: list[Answer] = []
    for each in answers:
        if not any(same(other, each) for other in kept):
            kept.append(each)
    return kept


def _renamed(answer: Answer, name: str) -> Answer:
    """`f(n)=n+1` as `f(x)=x+1`: the letter of a function's argument means nothing."""
    wanted, given = (re.fullmatch(r"(\w+)\((\w)\)", each) for each in (name, answer.name))
    if not wanted or not given or wanted[1] != given[1] or wanted[2] == given[2]:
        return answer
    if re.search(rf"(?<![a-zA-Z\\]){wanted[2]}(?![a-zA-Z])", answer.text):
        return answer
    return replace(take_apart(re.sub(rf"(?<![a-zA-Z\\]){given[2]}(?![a-zA-Z])", wanted[2], answer.text)), name=name)


def _is_value_of(name: str, other: str) -> bool:
    """`f(x)` and `y` name the same."""
    return "y" in (name, other) and any(re.fullmatch(r"\w\(\w\)", each) for each in (name, other))


def _same_with_equation(gold: Answer, answer: Answer) -> bool:
    if gold.kind == "equation":
        return (answer.kind == "equation" or bool(answer.name)) and _same_equation(gold, answer)
    if gold.name:
        return _same_equation(gold, answer)
    # 2+1=3 for 3: true, and ends in the answer.
    left, right = answer.parts
    return same(gold, right) and same(left, right)


def _same_equation(gold: Answer, answer: Answer) -> bool:
    one, other = _sides(gold), _sides(answer)
    return one is not None and other is not None and same_equation(one, other)


def _sides(answer: Answer) -> tuple[str, str] | None:
    if answer.kind == "equation":
        return answer.parts[0].text, answer.parts[1].text
    return (answer.name, answer.text) if answer.name and answer.kind == "term" else None
