r"""Equality of two terms: words, numbers with units or in a base, and expressions, parsed by math-verify.

math-verify alone drops units and bases, reads words as products of letters (so "seat" equals "east"), and compares to
six decimals (so 2e-19 equals 1e-10). Here units and bases must agree if both terms have them, and decimals are exact.
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

from hpt_trl.verifier.answers.normalization import closing, number
from hpt_trl.verifier.answers.units import DEGREE, PERCENT, Unit, split_unit

_WORDS = re.compile(r"[^\W\d_]{4,}|[A-Z]{3,}|\b(?i:yes|no|odd|dne)\b")
_TIME = re.compile(r"\d{1,2}:\d\d *[ap]\.?m\.?", re.IGNORECASE)
_BASED = re.compile(r"\(?(?:\\text\{)?([0-9A-Z]+)\}?\)?_[{(]*\s*(?:\\text\{\s*)?(\d+|[a-z]+)\s*[})]*")
_LONG_DECIMAL = re.compile(r"[+-]?(\d+)\.(\d+)")
_SET_SIGNS = re.compile(r"\\begin|\\setminus|\\backslash|\\cap(?![a-zA-Z])|\\mathbb|\\ne(?![a-zA-Z])|\\cup")
_NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
]  # fmt: skip
SYMPY_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    RecursionError,
)
"""What sympy raises when it fails, which is expected on arbitrary model output."""

# Units are off: it reads the t of `2x t` as one, and `split_unit` has already removed the units.
_NORMALIZATION = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
# Lowercasing is off: it would turn R^2 - r^2 into 0.
_CONVERSION = ConversionConfig(lowercase_symbols=False)

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
    matches = [_BASED.fullmatch(term) for term in (gold, answer)]
    if any(matches):
        return _same_in_base(gold, answer, *matches)
    return _same_quantity(*split_unit(gold), *split_unit(answer))


def is_term(text: str) -> bool:
    """Whether a term can be parsed as anything."""
    value, _ = split_unit(text)
    readings = (words_of(text), _BASED.fullmatch(text), number(value), parsed(value))
    return ":" in text or any(reading is not None for reading in readings)


def _same_quantity(gold: str, gold_unit: Unit | None, answer: str, answer_unit: Unit | None) -> bool:
    if gold_unit == answer_unit:
        return same_value(gold, answer)
    if gold_unit is None or answer_unit is None:
        if PERCENT in (gold_unit, answer_unit):
            return _same_percent(gold, answer) if gold_unit else _same_percent(answer, gold)
        # One of them omits the unit, for example because the question names it.
        if same_value(gold, answer):
            return True
        if DEGREE in (gold_unit, answer_unit):
            return _same_angle(gold, answer) if gold_unit else _same_angle(answer, gold)
        return False
    if DEGREE in (gold_unit, answer_unit) and gold_unit.dimensions == answer_unit.dimensions:
        return _same_angle(gold, answer) if gold_unit == DEGREE else _same_angle(answer, gold)
    if gold_unit.dimensions == answer_unit.dimensions:
        return _same_scaled(gold, gold_unit.factor, answer, answer_unit.factor)
    return gold_unit.is_compatible(answer_unit) and same_value(gold, answer)


def words_of(term: str) -> str | None:
    """Normalized words of a textual term; None if the term is mathematical."""
    bare = squeezed(term)
    if bare in _SYNONYMS:
        return _SYNONYMS[bare]
    plain = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", term)
    is_foreign = any(ord(char) > 0x3FF and char.isalpha() for char in plain)
    was_text = term.startswith(r"\text{") and closing(term, 5) == len(term) - 1 and len(plain.strip()) > 1
    if _TIME.fullmatch(plain.strip()):
        return re.sub(r"[. ]", "", plain.casefold())
    if re.search(r"[\\^_=+<>{}]", plain) or not (is_foreign or was_text or _WORDS.search(plain)):
        return None
    if not is_foreign and re.match(r"\s*[-+(]?\s*\d", plain):
        return None
    words = re.findall(r"[^\W_]+", plain.casefold())
    phrase = " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words)
    return None if phrase in _NUMBER_WORDS else _SYNONYMS.get(phrase, phrase)


def _same_in_base(gold: str, answer: str, gold_match: Any, answer_match: Any) -> bool:
    if gold_match and answer_match:
        values = [_in_base(*match.groups()) for match in (gold_match, answer_match)]
        return values[0] is not None and values[0] == values[1]
    # One of them omits the base. The digits must be the same: 42 does not answer 52_8, although the values are equal.
    digits, other = (gold_match[1], answer) if gold_match else (answer_match[1], gold)
    return digits == squeezed(other)


def _in_base(digits: str, base: str) -> int | None:
    radix = _NUMBER_WORDS.index(base) if base in _NUMBER_WORDS else int(base) if base.isdecimal() else 0
    if not 2 <= radix <= 36 or not all(int(digit, 36) < radix for digit in digits):
        return None
    return int(digits, radix)


def _same_percent(percentage: str, bare: str) -> bool:
    """Whether 50% equals 0.5, or 50 as an answer in percent; a bare number of at most 1 is always a fraction."""
    value = number(bare)
    if value is not None and abs(value) > 1 and same_value(percentage, bare):
        return True
    return _same_scaled(percentage, PERCENT.factor, bare, Fraction(1))


def _same_angle(degrees: str, radians: str) -> bool:
    return same_value(rf"\frac{{\pi}}{{180}} \cdot ({degrees})", radians)


def _same_scaled(gold: str, gold_factor: Fraction, answer: str, answer_factor: Fraction) -> bool:
    gold_number, answer_number = number(gold), number(answer)
    if gold_number is not None and answer_number is not None:
        return gold_number * gold_factor == answer_number * answer_factor
    return same_value(f"({gold}) \\cdot {_fraction(gold_factor)}", f"({answer}) \\cdot {_fraction(answer_factor)}")


def _fraction(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def same_value(gold: str, answer: str) -> bool:
    """Whether two expressions without units are equal."""
    if squeezed(gold) == squeezed(answer):
        return True
    gold, answer = _digits(gold), _digits(answer)
    gold_number, answer_number = number(gold), number(answer)
    tolerance = max(_last_place(gold), _last_place(answer))
    if gold_number is not None and answer_number is not None:
        return gold_number == answer_number or abs(gold_number - answer_number) < tolerance
    if ":" in gold or ":" in answer:
        return _same_ratio(gold.split(":"), answer.split(":"))
    left, right = parsed(gold), parsed(answer)
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        is_equal = _equal_at_points(left, right, float(tolerance))
        if is_equal is not None:
            return is_equal
    return _verified(left, right)


def _digits(text: str) -> str:
    word = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip().lower()
    return str(_NUMBER_WORDS.index(word)) if word in _NUMBER_WORDS else text


def _last_place(text: str) -> Fraction:
    """Value of one unit in the last place of a long decimal; 0 for a short decimal, which is taken as exact."""
    match = _LONG_DECIMAL.fullmatch(text.strip())
    if not match or len((match[1] + match[2]).lstrip("0")) < 10:
        return Fraction(0)
    return Fraction(1, 10 ** min(len(match[2]), 15))


def _same_ratio(gold: Sequence[str], answer: Sequence[str]) -> bool:
    if len(gold) == len(answer):
        return all(
            same_value(rf"({gold[0]}) \cdot ({b})", rf"({answer[0]}) \cdot ({a})") for a, b in zip(gold[1:], answer[1:])
        )
    if {len(gold), len(answer)} != {1, 2}:
        return False
    values = [rf"\frac{{{ratio[0]}}}{{{ratio[1]}}}" if len(ratio) == 2 else ratio[0] for ratio in (gold, answer)]
    return same_value(*values)


@lru_cache(maxsize=512)
def parsed(text: str) -> Any:
    """Parse a text with math-verify's parser, with exact decimals; None if it fails."""
    text = normalize_latex(text, _NORMALIZATION)
    try:
        expression = latex2sympy(
            text, is_real=not should_treat_as_complex(text), normalization_config=None, conversion_config=_CONVERSION
        )
    except MemoryError:
        raise
    except Exception:  # this parser raises a bare Exception for a syntax error
        return None
    if not isinstance(expression, sympy.Basic | sympy.MatrixBase):
        return None
    exact = {decimal: sympy.Rational(str(decimal)) for decimal in expression.atoms(sympy.Float)}
    # Unless it is the index of a sum or product, i is the imaginary unit; math-verify reads it as a variable.
    imaginary = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name in ("i", "imath")}
    return expression.xreplace(exact | imaginary)


def _verified(left: Any, right: Any) -> bool:
    return left is not None and right is not None and verify(left, right, timeout_seconds=None)


def same_set(gold: str, answer: str) -> bool:
    """Whether two sets in different notation are equal according to sympy."""
    return bool(_SET_SIGNS.search(gold) or _SET_SIGNS.search(answer)) and _verified(parsed(gold), parsed(answer))


def same_equation(gold: tuple[str, str], answer: tuple[str, str]) -> bool:
    """Whether two equations, given by their sides, are equivalent: one is a multiple of the other."""
    sides = [parsed(side) for side in (*gold, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in sides):
        return False
    gold_difference, answer_difference = sides[0] - sides[1], sides[2] - sides[3]
    if gold_difference.free_symbols != answer_difference.free_symbols:
        return False
    points = _points(gold_difference, answer_difference)
    values = [_value(gold_difference / answer_difference, point) for point in points]
    ratios = [value for value in values if value is not None]
    return len(ratios) > 2 and ratios[0] != 0 and all(_close(ratio, ratios[0], 0.0) for ratio in ratios)


def _equal_at_points(left: sympy.Expr, right: sympy.Expr, tolerance: float) -> bool | None:
    """Whether two expressions agree at a few points, to 25 digits; None if this cannot be decided.

    Different expressions as short as an answer do not agree at random points (Schwartz-Zippel), and a single point
    where they differ is a proof.
    """
    agreed = 0
    for point in _points(left, right):
        left_value, right_value = _value(left, point), _value(right, point)
        if left_value is None or right_value is None:
            continue
        if not _close(left_value, right_value, tolerance):
            # Off the positive axis, ln(x^2) and 2 ln(x) are on different branches.
            is_positive = all(coordinate > 0 for coordinate in point.values())
            if is_positive or (left_value.is_real and right_value.is_real):
                return False
            continue
        agreed += 1
    return True if agreed >= min(2, len(left.free_symbols | right.free_symbols) + 1) else None


def _points(*expressions: sympy.Expr) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Points of comparison: three with positive coordinates, two with mixed signs."""
    symbols = sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)
    for row in range(5 if symbols else 1):
        signs = (1, -1) if row > 2 else (1, 1)
        yield {
            # By name, because sympy distinguishes a real x from a complex x.
            symbol: sympy.Rational(
                signs[(row + ord(symbol.name[0])) % 2] * (311 + 97 * row + 61 * _index_by_name(symbol, symbols)), 173
            )
            for symbol in symbols
        }


def _index_by_name(symbol: sympy.Symbol, symbols: Sequence[sympy.Symbol]) -> int:
    return sorted({other.name for other in symbols}).index(symbol.name)


def _value(expression: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational]) -> Any:
    """Value of an expression at a point, to 30 digits and at least 20 decimals; None if it is not a finite number."""
    try:
        substituted = expression.xreplace(point)
        value = substituted.evalf(30)
        if value.is_number and abs(value) > 10**9:
            digits = int(sympy.log(abs(value), 10).evalf(10)) + 30
            value = substituted.evalf(digits) if digits < 3000 else sympy.nan
    except SYMPY_ERRORS:
        return None
    return value if value.is_number and value.is_finite else None


def _close(left: Any, right: Any, tolerance: float) -> bool:
    difference, size = abs(left - right).evalf(30), abs(left).evalf(30)
    # 1e-100 allows for the rounding error of an exact zero.
    return bool(difference <= max(min(size * sympy.Float("1e-25"), 1e-15), tolerance, 1e-100))


def squeezed(text: str) -> str:
    """The text without whitespace."""
    return re.sub(r"\s", "", text)
