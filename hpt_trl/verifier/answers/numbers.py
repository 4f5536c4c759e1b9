"""Rational numbers in their written forms, read exactly."""

import re
from fractions import Fraction

_DECIMAL = r"\d{1,300}(?:\.\d{1,300})?"
_SIGN = r"([+-]?)\s*"
_NUMBER = re.compile(rf"{_SIGN}({_DECIMAL})")
_QUOTIENT = re.compile(
    rf"{_SIGN}(?:\\frac\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}|({_DECIMAL})\s*/\s*([+-]?)({_DECIMAL}))"
)
_MIXED = re.compile(rf"{_SIGN}(\d{{1,300}})\s*(?:\\frac\{{\s*(\d+)\s*\}}\{{\s*(\d+)\s*\}}|(?<=\d)\s(\d+)\s*/\s*(\d+))")
_SCIENTIFIC = re.compile(
    rf"{_SIGN}(?:({_DECIMAL})\s*(?:e|E|(?:\\times|\\cdot|x)\s*10\s*\^)|10\s*\^)\s*\{{?\s*([+-]?\d{{1,3}})\s*\}}?"
)
_THOUSANDS = re.compile(rf"{_SIGN}(\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?: \d{{3}})+)(\.\d+)?")
_REPEATING = re.compile(rf"{_SIGN}(\d+)\.(\d*)\\(?:overline|bar|dot)\s*\{{?\s*(\d+)\s*\}}?")
_CONTINUED = re.compile(rf"{_SIGN}(\d+)\.(\d*?)(\d+?)\4{{2,}}\s*(?:\\ldots|\.\.\.)")

NUMBER_WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
]  # fmt: skip
SCALES = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip


def number(text: str) -> Fraction | None:
    r"""Parse a normalized text as a rational number (integer, decimal, fraction, mixed, scientific), or None.

    Example:
        >>> number("-2.50"), number("3 1/2"), number(r"0.1\overline{6}"), number("-3+1/2")
        (Fraction(-5, 2), Fraction(7, 2), Fraction(1, 6), None)
    """
    text = text.strip()
    if match := _NUMBER.fullmatch(text):
        return _signed(match[1], Fraction(match[2]))
    if match := _THOUSANDS.fullmatch(text):
        return _signed(match[1], Fraction(re.sub("[ ,]", "", match[2]) + (match[3] or "")))
    if match := _QUOTIENT.fullmatch(text):
        signs = match[1] + (match[2] or "") + (match[4] or match[7] or "")
        return _quotient("-" * (signs.count("-") % 2), match[3] or match[6], match[5] or match[8])
    if match := _MIXED.fullmatch(text):
        part = _quotient("", match[3] or match[5], match[4] or match[6])
        return None if part is None else _signed(match[1], int(match[2]) + part)
    if match := _SCIENTIFIC.fullmatch(text):
        return _signed(match[1], Fraction(match[2] or 1) * Fraction(10) ** int(match[3]))
    if match := _REPEATING.fullmatch(text) or _CONTINUED.fullmatch(text):
        fixed, period = match[3], match[4]
        tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return _signed(match[1], Fraction(f"{match[2]}.{fixed or 0}") + tail)
    return None


def _quotient(sign: str, numerator: str, denominator: str) -> Fraction | None:
    divisor = Fraction(denominator)
    return _signed(sign, Fraction(numerator) / divisor) if divisor else None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


_FLOAT = re.compile(r"[+-]?(\d+)\.(\d+)(?:\s*(?:e|E|(?:\\times|\\cdot)\s*10\s*\^)\s*\{?\s*([+-]?\d{1,3})\s*\}?)?")


def last_place(text: str) -> Fraction:
    """Value of one unit in the last place of a decimal."""
    match = _FLOAT.fullmatch(text.strip())
    return Fraction(10) ** (int(match[3] or 0) - len(match[2])) if match else Fraction(0)


def significant_digits(text: str) -> int:
    """Number of significant digits of a decimal with a point, without zeros or nines at the end; 0 for other texts."""
    match = _FLOAT.fullmatch(text.strip())
    return len((match[1] + match[2]).strip("0").rstrip("9")) if match else 0


def in_base(digits: str, base: str) -> Fraction | None:
    """Value of a numeral such as `0.11` in base `2` or `two`; None if it has a digit that is not below the base."""
    radix = NUMBER_WORDS.index(base) if base in NUMBER_WORDS else int(base) if base.isdecimal() else 0
    whole, _, fraction = digits.partition(".")
    numeral = whole + fraction
    if not numeral.isalnum() or not 2 <= radix <= 36 or not all(int(digit, 36) < radix for digit in numeral):
        return None
    return Fraction(int(numeral, radix), radix ** len(fraction))
