r"""Are two terms equal? Words, numbers with units or in a base, and expressions, which math-verify's parser reads.

math-verify alone drops units and bases, takes letters of words for factors (so "seat" is "east"), and compares to six
decimals (so 2e-19 is 1e-10). Here units and bases must agree where both are given, and a decimal is the number it
spells.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from hpt_trl.verifier.answers.spelling import closing, number
from hpt_trl.verifier.answers.units import DEGREE, PERCENT, Unit, split_unit

_WORDS = re.compile(r"[^\W\d_]{4,}|[A-Z]{3,}|\b(?i:yes|no|odd|dne)\b")
_TIME = re.compile(r"\d{1,2}:\d\d *[ap]\.?m\.?", re.IGNORECASE)
_BASED = re.compile(r"\(?(?:\\text\{)?([0-9A-Z]+)\}?\)?_[{(]*\s*(?:\\text\{\s*)?(\d+|[a-z]+)\s*[})]*")
_LONG_DECIMAL = re.compile(r"[+-]?(\d+)\.(\d+)")
_SET_SIGNS = re.compile(r"\\begin|\\setminus|\\backslash|\\cap(?![a-zA-Z])|\\mathbb|\\ne(?![a-zA-Z])|\\cup")
_COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SYMPY_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    RecursionError,
)
"""What sympy raises where it cannot go on, which on text made up by a model is no news."""

# Not its units: it takes the t of `2x t` for one. Ours are gone by then.
_SPELLING = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
# Not its small letters for capitals: R^2 - r^2 would be 0.
_READING = ConversionConfig(lowercase_symbols=False)

EMPTY = "no solution"
_SYNONYMS = {
    "no solutions": EMPTY, "no real solution": EMPTY, "no real solutions": EMPTY, "none": EMPTY, "empty set": EMPTY,
    r"\emptyset": EMPTY, r"\{\}": EMPTY, r"\{ \}": EMPTY, "there is no solution": EMPTY,
    "there are no solutions": EMPTY,
    "dne": "does not exist", "infinite": r"\infty", "infinitely many": r"\infty",
}  # fmt: skip


def same_term(gold: str, answer: str) -> bool:
    """Whether two terms without inner structure are equal: words, quantities, numbers in a base, expressions."""
    if squeezed(gold) == squeezed(answer):
        return True
    if (words := words_of(gold)) is not None or words_of(answer) is not None:
        return words is not None and words == words_of(answer)
    based = [_BASED.fullmatch(each) for each in (gold, answer)]
    if any(based):
        return _same_in_base(gold, answer, *based)
    return _same_quantity(*split_unit(gold), *split_unit(answer))


def is_term(text: str) -> bool:
    """Whether a term says anything that can be read."""
    value, _ = split_unit(text)
    readings = (words_of(text), _BASED.fullmatch(text), number(value), parsed(value))
    return ":" in text or any(each is not None for each in readings)


def _same_quantity(gold: str, gold_unit: Unit | None, answer: str, answer_unit: Unit | None) -> bool:
    if gold_unit == answer_unit:
        return same_value(gold, answer)
    if gold_unit is None or answer_unit is None:
        if PERCENT in (gold_unit, answer_unit):
            return _same_percent(gold, answer) if gold_unit else _same_percent(answer, gold)
        # The unit was left out, or is the question's.
        if same_value(gold, answer):
            return True
        if DEGREE in (gold_unit, answer_unit):
            return _same_angle(gold, answer) if gold_unit else _same_angle(answer, gold)
        return False
    if DEGREE in (gold_unit, answer_unit) and gold_unit.dimensions == answer_unit.dimensions:
        return _same_angle(gold, answer) if gold_unit == DEGREE else _same_angle(answer, gold)
    if gold_unit.dimensions == answer_unit.dimensions:
        return _same_scaled(gold, gold_unit.factor, answer, answer_unit.factor)
    return gold_unit.may_say_less(answer_unit) and same_value(gold, answer)


def words_of(term: str) -> str | None:
    """Words of a term that is text, in one spelling; None if it is mathematics."""
    bare = squeezed(term)
    if bare in _SYNONYMS:
        return _SYNONYMS[bare]
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", term)
    is_foreign = any(ord(each) > 0x3FF and each.isalpha() for each in plain)
    was_text = term.startswith(r"\text{") and closing(term, 5) == len(term) - 1 and len(plain.strip()) > 1
    if _TIME.fullmatch(plain.strip()):
        return re.sub(r"[. ]", "", plain.casefold())
    if re.search(r"[\\^_=+<>{}]", plain) or not (is_foreign or was_text or _WORDS.search(plain)):
        return None
    if not is_foreign and re.match(r"\s*[-+(]?\s*\d", plain):
        return None
    words = re.findall(r"[^\W_]+", plain.casefold())
    spelled = " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)
    return None if spelled in _COUNTS else _SYNONYMS.get(spelled, spelled)


def _same_in_base(gold: str, answer: str, gold_found: Any, answer_found: Any) -> bool:
    if gold_found and answer_found:
        values = [_in_base(*found.groups()) for found in (gold_found, answer_found)]
        return values[0] is not None and values[0] == values[1]
    # The base was left out. A value in another base was not converted: 42 is no answer to 52_8.
    digits, other = (gold_found[1], answer) if gold_found else (answer_found[1], gold)
    return digits == squeezed(other)


def _in_base(digits: str, base: str) -> int | None:
    radix = _COUNTS.index(base) if base in _COUNTS else int(base) if base.isdecimal() else 0
    if not 2 <= radix <= 36 or not all(int(digit, 36) < radix for digit in digits):
        return None
    return int(digits, radix)


def _same_percent(share: str, bare: str) -> bool:
    """50% is 0.5, and is 50 where per cent were asked for: never where the bare number is itself a share."""
    value = number(bare)
    if value is not None and abs(value) > 1 and same_value(share, bare):
        return True
    return _same_scaled(share, PERCENT.factor, bare, Fraction(1))


def _same_angle(degrees: str, radians: str) -> bool:
    return same_value(rf"\frac{{\pi}}{{180}} \cdot ({degrees})", radians)


def _same_scaled(gold: str, gold_factor: Fraction, answer: str, answer_factor: Fraction) -> bool:
    one, other = number(gold), number(answer)
    if one is not None and other is not None:
        return one * gold_factor == other * answer_factor
    return same_value(f"({gold}) \\cdot {_fraction(gold_factor)}", f"({answer}) \\cdot {_fraction(answer_factor)}")


def _fraction(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def same_value(gold: str, answer: str) -> bool:
    """Whether two expressions without units are equal."""
    if squeezed(gold) == squeezed(answer):
        return True
    gold, answer = _digits(gold), _digits(answer)
    one, other = number(gold), number(answer)
    slack = max(_last_place(gold), _last_place(answer))
    if one is not None and other is not None:
        return one == other or abs(one - other) < slack
    if ":" in gold or ":" in answer:
        return _same_ratio(gold.split(":"), answer.split(":"))
    left, right = parsed(gold), parsed(answer)
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        decided = _decide(left, right, float(slack))
        if decided is not None:
            return decided
    return _verified(left, right)


def _digits(text: str) -> str:
    word = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip().lower()
    return str(_COUNTS.index(word)) if word in _COUNTS else text


def _last_place(text: str) -> Fraction:
    """What one unit of a long decimal's last digit is worth; 0 if it is short, and so means just what it says."""
    found = _LONG_DECIMAL.fullmatch(text.strip())
    if not found or len((found[1] + found[2]).lstrip("0")) < 10:
        return Fraction(0)
    return Fraction(1, 10 ** min(len(found[2]), 15))


def _same_ratio(gold: Sequence[str], answer: Sequence[str]) -> bool:
    if len(gold) == len(answer):
        return all(
            same_value(rf"({gold[0]}) \cdot ({b})", rf"({answer[0]}) \cdot ({a})") for a, b in zip(gold[1:], answer[1:])
        )
    if {len(gold), len(answer)} != {1, 2}:
        return False
    one, other = (rf"\frac{{{each[0]}}}{{{each[1]}}}" if len(each) == 2 else each[0] for each in (gold, answer))
    return same_value(one, other)


@lru_cache(maxsize=512)
def parsed(text: str) -> Any:
    """What math-verify's parser reads a text as, decimals made exact; None if it cannot."""
    text = normalize_latex(text, _SPELLING)
    try:
        found = latex2sympy(
            text, is_real=not should_treat_as_complex(text), normalization_config=None, conversion_config=_READING
        )
    except MemoryError:
        raise
    except Exception:  # a syntax error is a bare Exception to this parser
        return None
    if not isinstance(found, sympy.Basic | sympy.MatrixBase):
        return None
    exact = {each: sympy.Rational(str(each)) for each in found.atoms(sympy.Float)}
    # Where no sum or product counts with it, i is the imaginary unit; to math-verify it is a variable.
    imaginary = {each: sympy.I for each in found.free_symbols if each.name in ("i", "imath")}
    return found.xreplace(exact | imaginary)


def _verified(left: Any, right: Any) -> bool:
    return left is not None and right is not None and verify(left, right, timeout_seconds=None)


def same_set(gold: str, answer: str) -> bool:
    """Whether sets that are written differently are equal, as sympy sees them."""
    return bool(_SET_SIGNS.search(gold) or _SET_SIGNS.search(answer)) and _verified(parsed(gold), parsed(answer))


def same_equation(gold: tuple[str, str], answer: tuple[str, str]) -> bool:
    """Whether two equations, given as their sides, say the same: one is a multiple of the other."""
    sides = [parsed(side) for side in (*gold, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    if one.free_symbols != other.free_symbols:
        return False
    ratios = [_value(one / other, point) for point in _points(one, other)]
    known = [ratio for ratio in ratios if ratio is not None]
    return len(known) > 2 and known[0] != 0 and all(_close(ratio, known[0], 0.0) for ratio in known)


def _decide(left: sympy.Expr, right: sympy.Expr, slack: float) -> bool | None:
    """Equality of two expressions at a few points, to 25 digits; None where it does not show.

    Two different expressions of the length of an answer do not agree at random points (Schwartz-Zippel), and one point
    where they differ is a proof.
    """
    agreed = 0
    for point in _points(left, right):
        one, other = _value(left, point), _value(right, point)
        if one is None or other is None:
            continue
        if not _close(one, other, slack):
            # Off the positive axis, ln(x^2) and 2 ln(x) are on different branches.
            is_positive = all(value > 0 for value in point.values())
            if is_positive or (one.is_real and other.is_real):
                return False
            continue
        agreed += 1
    return True if agreed >= min(2, len(left.free_symbols | right.free_symbols) + 1) else None


def _points(*expressions: sympy.Expr) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Where to compare: three points with positive coordinates, two with either sign."""
    symbols = sorted(set().union(*(each.free_symbols for each in expressions)), key=str)
    for row in range(5 if symbols else 1):
        signs = (1, -1) if row > 2 else (1, 1)
        yield {
            # By name: x is another symbol to sympy where it may be complex.
            symbol: sympy.Rational(
                signs[(row + ord(symbol.name[0])) % 2] * (311 + 97 * row + 61 * _place(symbol, symbols)), 173
            )
            for symbol in symbols
        }


def _place(symbol: sympy.Symbol, symbols: Sequence[sympy.Symbol]) -> int:
    return sorted({each.name for each in symbols}).index(symbol.name)


def _value(expression: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational]) -> Any:
    """The number an expression is at a point, to 30 digits and at least 20 behind the point; None where it is none."""
    try:
        placed = expression.xreplace(point)
        value = placed.evalf(30)
        if value.is_number and abs(value) > 10**9:
            digits = int(sympy.log(abs(value), 10).evalf(10)) + 30
            value = placed.evalf(digits) if digits < 3000 else sympy.nan
    except SYMPY_ERRORS:
        return None
    return value if value.is_number and value.is_finite else None


def _close(one: Any, other: Any, slack: float) -> bool:
    difference, size = abs(one - other).evalf(30), abs(one).evalf(30)
    # The last is what is left of a zero.
    return bool(difference <= max(min(size * sympy.Float("1e-25"), 1e-15), slack, 1e-100))


def squeezed(text: str) -> str:
    """A text without its spaces."""
    return re.sub(r"\s", "", text)
