r"""Equality of two terms: words, quantities, numbers in a base, and expressions, which math-verify's parser reads.

A term that the parser would read only in part, such as `f'(x)` or `5 6`, equals nothing but its own spelling.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify.grader import should_treat_as_complex

from hpt_trl.verifier.answers.normalization import closing, squeezed
from hpt_trl.verifier.answers.numbers import NUMBER_WORDS, in_base, last_place, number, significant_digits
from hpt_trl.verifier.answers.units import DEGREE, PERCENT, Quantity, quantity
from hpt_trl.verifier.answers.values import equal

_WORDS = re.compile(r"[^\W\d_]{4,}|[A-Z]{3,}|\b(?i:yes|no|odd|dne)\b")
_TIME = re.compile(r"\d{1,2}:\d\d *[ap]\.?m\.?", re.IGNORECASE)
_BASED = re.compile(
    r"\(?(?:\\text\{)?([0-9A-Z]+(?:\.[0-9A-Z]+)?)\}?\)?_(?:(\w)|[{(]+\s*(?:\\text\{\s*)?(\d+|[a-z]+)\s*[})]+)"
)
_NOUN = re.compile(r"(?<=\w) (?:triangles?|numbers?|functions?|lines?)$")
# The parser drops these, or reads them as products of letters.
_UNREADABLE = re.compile(
    r"(?<![_^])\d\s+[\d.]|\d_|'|\\prime|\\partial|\\angle|\\triangle|\\ldots|\\equiv|\\overline\{[A-Z]|\\frac\{\s*d[^{}]*\}\{\s*d|:|\?"
)
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\\circ")
_DUMMIES = frozenset("klmn")
_DIGITS_OF_ROUNDING = 10
_DIGITS_OF_FLOAT = 16  # the last one may be off by one

# Units are off: it reads the t of `2x t` as one, and `quantity` has already removed the units.
_NORMALIZATION = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")
# Lowercasing is off: it would turn R^2 - r^2 into 0.
_CONVERSION = ConversionConfig(lowercase_symbols=False)

EMPTY = "no solution"
_SYNONYMS = {
    "no solutions": EMPTY, "no real solution": EMPTY, "no real solutions": EMPTY, "none": EMPTY, "empty set": EMPTY,
    r"\emptyset": EMPTY, r"\{\}": EMPTY, "there is no solution": EMPTY, "there are no solutions": EMPTY,
    "dne": "does not exist", "infinite": r"\infty", "infinitely many": r"\infty", r"\infty": r"\infty",
    r"+\infty": r"\infty",
}  # fmt: skip


def same_term(gold: str, answer: str) -> bool:
    """Whether two terms without inner structure are equal: words, quantities, numbers in a base, expressions."""
    if squeezed(gold) == squeezed(answer):
        return True
    words = words_of(gold), words_of(answer)
    if words != (None, None):
        return words[0] == words[1]
    bases = _BASED.fullmatch(squeezed(gold)), _BASED.fullmatch(squeezed(answer))
    if any(bases):
        return _same_in_base(gold, answer, *bases)
    return _same_quantity(quantity(gold), quantity(answer))


def is_term(text: str) -> bool:
    """Whether a term can be read completely."""
    value = quantity(text).value
    readings = (words_of(text), _BASED.fullmatch(squeezed(text)), number(value), parsed(value))
    return any(reading is not None for reading in readings)


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
    return None if phrase in NUMBER_WORDS else _SYNONYMS.get(phrase, _NOUN.sub("", phrase))


def _same_in_base(gold: str, answer: str, gold_match: Any, answer_match: Any) -> bool:
    values = [
        in_base(match[1], match[2] or match[3]) if match else number(text)
        for text, match in ((gold, gold_match), (answer, answer_match))
    ]
    if answer_match:
        return values[0] is not None and values[0] == values[1]
    # Without its base, the answer must have the same digits: 42 does not answer 52_8, although the values are equal.
    return values[0] is not None and gold_match[1] == squeezed(answer)


def _same_quantity(gold: Quantity, answer: Quantity) -> bool:
    units = gold.unit, answer.unit
    if None in units and PERCENT in units:
        percentage, bare = (gold, answer) if gold.unit else (answer, gold)
        value = number(bare.value)
        # 50% is 0.5, or 50 as an answer in percent; a bare number of at most 1 is always a fraction.
        is_in_percent = value is not None and abs(value) > 1 and same_value(percentage.value, bare.value)
        return is_in_percent or _same_scaled(percentage, PERCENT.factor, bare, Fraction(1))
    if DEGREE in units and units[0] != units[1]:
        degrees, other = (gold, answer) if gold.unit == DEGREE else (answer, gold)
        if other.unit is None and r"\pi" not in degrees.value and same_value(degrees.value, other.value):
            return True
        if other.unit is not None and other.unit.dimensions != DEGREE.dimensions:
            return False
        return same_value(rf"\frac{{\pi}}{{180}} \cdot ({degrees.value})", other.value)
    if gold.unit is None or answer.unit is None:
        # One of them omits the unit, for example because the question names it.
        return _same_scaled(gold, Fraction(1), answer, Fraction(1))
    if gold.unit == DEGREE:
        return same_value(gold.value, answer.value)
    return gold.unit.is_compatible(answer.unit) and _same_scaled(gold, gold.unit.factor, answer, answer.unit.factor)


def _same_scaled(gold: Quantity, gold_factor: Fraction, answer: Quantity, answer_factor: Fraction) -> bool:
    factor = gold_factor * gold.scale / (answer_factor * answer.scale)
    if factor == 1:
        return same_value(gold.value, answer.value)
    gold_number, answer_number = number(gold.value), number(answer.value)
    if gold_number is not None and answer_number is not None:
        return gold_number * factor == answer_number
    return same_value(rf"({gold.value}) \cdot \frac{{{factor.numerator}}}{{{factor.denominator}}}", answer.value)


def same_value(gold: str, answer: str) -> bool:
    """Whether two expressions without units are equal."""
    if squeezed(gold) == squeezed(answer):
        return True
    gold, answer = _digits(gold), _digits(answer)
    left, right = parsed(gold), parsed(answer)
    if left is None or right is None:
        return False
    if equal(left, right) or equal(left, _with_dummy_of(left, right)):
        return True
    rounded, exact = max((gold, right), (answer, left), key=lambda pair: last_place(pair[0]))
    return significant_digits(rounded) >= _DIGITS_OF_ROUNDING and _is_rounding(exact, rounded)


def _with_dummy_of(gold: sympy.Expr, answer: sympy.Expr) -> sympy.Expr:
    r"""The general solution `k\pi` with the integer of `n\pi`."""
    gold_dummies, answer_dummies = gold.free_symbols - answer.free_symbols, answer.free_symbols - gold.free_symbols
    names = {symbol.name for symbol in gold_dummies | answer_dummies}
    if len(gold_dummies) != 1 or len(answer_dummies) != 1 or not names <= _DUMMIES:
        return answer
    (old,), (new,) = answer_dummies, gold_dummies
    is_multiple_of_pi = all(
        expression.diff(symbol).has(sympy.pi) and not expression.diff(symbol).free_symbols
        for expression, symbol in ((gold, new), (answer, old))
    )
    return answer.xreplace({old: new}) if is_multiple_of_pi else answer


def _digits(text: str) -> str:
    word = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip().lower()
    return str(NUMBER_WORDS.index(word)) if word in NUMBER_WORDS else text


def is_rounding(exact: str, rounded: str) -> bool:
    """Whether a decimal with at least one place rounds or truncates a number."""
    expression = parsed(exact)
    return (
        expression is not None
        and last_place(rounded) > 0
        and number(rounded) != 0
        and _is_rounding(expression, rounded)
    )


def _is_rounding(exact: sympy.Expr, rounded: str) -> bool:
    value, half = number(rounded), last_place(rounded) / 2
    if value is None or exact.free_symbols:
        return False
    if significant_digits(rounded) >= _DIGITS_OF_FLOAT and not exact.is_Rational:
        half *= 2
    truncated = value + half if value > 0 else value - half
    return any(equal(exact, sympy.Rational(center), half) for center in (value, truncated))


@lru_cache(maxsize=512)
def parsed(text: str) -> sympy.Expr | None:
    """Parse a text with math-verify's parser, with exact decimals; None if it cannot be read as an expression."""
    exact = number(text)
    if exact is not None:
        return sympy.Rational(exact)
    if _UNREADABLE.search(text):
        return None
    text = normalize_latex(_DEGREES.sub(r"(\\frac{\1\\pi}{180})", text), _NORMALIZATION)
    try:
        expression = latex2sympy(
            text, is_real=not should_treat_as_complex(text), normalization_config=None, conversion_config=_CONVERSION
        )
    except MemoryError:
        raise
    except Exception:  # this parser raises a bare Exception for a syntax error
        return None
    if not isinstance(expression, sympy.Expr) or expression.has(sympy.Derivative):
        return None
    exact_decimals = {decimal: sympy.Rational(str(decimal)) for decimal in expression.atoms(sympy.Float)}
    # Unless it is the index of a sum or product, i is the imaginary unit; math-verify reads it as a variable.
    imaginary = {symbol: sympy.I for symbol in expression.free_symbols if symbol.name in ("i", "imath")}
    return expression.xreplace(exact_decimals | imaginary)
