"""Units of an answer: percent, degrees, money, units of measurement, or counted things."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from hpt_trl.verifier.answers.numbers import NUMBER_WORDS, SCALES

# Symbols with SI prefixes, in which upper and lower case differ: size in base units, and the base units with powers.
_SI = {
    "m": "1 m", "g": "1 g", "s": "1 s", "A": "1 A", "K": "1 K", "mol": "1 mol", "L": "1/1000 m3", "l": "1/1000 m3",
    "Hz": "1 s-1", "N": "1000 g m s-2", "J": "1000 g m2 s-2", "W": "1000 g m2 s-3", "Pa": "1000 g m-1 s-2",
    "V": "1000 g m2 s-3 A-1", "C": "1 A s", "eV": "1 eV", "T": "1000 g s-2 A-1",
}  # fmt: skip
_PREFIXES = {"n": -9, "µ": -6, "μ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12}
_LONG_PREFIXES = {"nano": -9, "micro": -6, "milli": -3, "centi": -2, "kilo": 3, "mega": 6, "giga": 9}
# Words, in any case and number.
_WORDS = {
    "meter metre": "1 m", "gram": "1 g", "second sec": "1 s", "minute min": "60 s", "hour hr h": "3600 s",
    "day": "86400 s", "week": "604800 s", "liter litre": "1/1000 m3", "inch inche in": "127/5000 m",
    "foot feet ft": "381/1250 m", "yard yd": "1143/1250 m", "mile mi": "201168/125 m", "pound lb": "45359237/100000 g",
    "ounce oz": "45359237/1600000 g", "dollar usd": "1 dollar", "cent": "1/100 dollar", "euro eur": "1 euro",
    "radian rad": "1 rad", "newton": "1000 g m s-2", "joule": "1000 g m2 s-2", "watt": "1000 g m2 s-3",
    "pascal": "1000 g m-1 s-2", "volt": "1000 g m2 s-3 A-1", "hertz": "1 s-1", "mph": "201168/450000 m s-1",
    "kph kmh": "5/18 m s-1", "erg": "1/10000 g m2 s-2",
}  # fmt: skip
# Words after a number that change its value or its meaning, so that they cannot be the things that it counts.
_VALUE_WORDS = """
    or and not no nor maybe perhaps possibly alternatively otherwise either neither approximately to from
    between plus minus times over divided multiplied by less more than most least under above below greater
    fewer half third quarter double triple twice choose mod modulo pi is are if where when for except but
    wrong incorrect false loss debt negative point twenty thirty forty fifty sixty seventy eighty ninety
    percent i e all know can could might may will should would be was were guess sure think then so only
    equals equal
"""
_CHANGES_VALUE = frozenset(_VALUE_WORDS.split()) | {*NUMBER_WORDS, *SCALES}
_FILLERS = frozenset({"of", "the", "a", "an"})
_SINGLE_LETTERS = frozenset("mgshl")
_PRODUCTS = frozenset({"mg", "ms", "nm", "mi", "ml"})  # units only after a space: `2mg` is the product 2*m*g

_PERCENT = re.compile(r"\s*(?:\\?%|(?:\\text\{)?\s*(?:per\s?cent|percent(?:age)?|pct)\s*\.?\}?)\s*$", re.IGNORECASE)
_DEGREES = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?\s*(?:\\text\{)?\s*([CFK]?)\s*\}?|(?:\\text\{)?\s*deg(?:ree)?s?\s*\}?)$"
)
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_CURRENCY = re.compile(r"([+-]?)\s*(\\?\$|€|£|USD\s|EUR\s)\s*(?=[\d.\\-])")
_CURRENCIES = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "sterling", "USD": "dollar", "EUR": "euro"}
_POWER = r"(?:\s*\^\s*(?:-?\d|\{\s*-?\d\s*\}))"
_WRITTEN = re.compile(
    rf"^(.*?[^\s\\])\s*((?:(?:/|\\cdot|\\times)?\s*\\text\{{(?:[^{{}}]|\{{-?\d\}})*\}}{_POWER}?\s*)+)$"
)
# Without \text{}, words are units only after a number: `2k` and `5x` are products.
_PLAIN = re.compile(
    r"^([+-]?[\d.,]+|[+-]?\d*\s*\\frac\{\d+\}\{\d+\}|[+-]?\d+/\d+|[+-]?[\d.]*\s*\\pi(?=\s+[a-z]{2}))(\s*)"
    rf"([a-zA-Z][a-zA-Z. /]*{_POWER}?(?:/[a-z]+{_POWER}?)?)$"
)
_SPOKEN = [
    (re.compile(r"\b(?:square|sq\.?)\s+([a-zA-Z]+)"), r"\1^2 "),
    (re.compile(r"\b(?:cubic|cu\.?)\s+([a-zA-Z]+)"), r"\1^3 "),
    (re.compile(r"([a-zA-Z]+)\s+squared\b"), r"\1^2 "),
    (re.compile(r"([a-zA-Z]+)\s+cubed\b"), r"\1^3 "),
]
_TOKEN = re.compile(r"\s*(?:(/|per\b)|([^\W\d_]+)\.?(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?|([,()]))\s*")


def _read(measure: str, exponent: int = 0) -> tuple[Fraction, tuple[tuple[str, int], ...]]:
    """Size and base units of an entry of the tables, multiplied by a power of ten."""
    size, *bases = measure.split()
    powers = tuple((name, int(power or 1)) for name, power in re.findall(r"([a-zA-Z]+)(-?\d)?", " ".join(bases)))
    return Fraction(size) * Fraction(10) ** exponent, powers


_SYMBOLS = {
    prefix + name: _read(measure, exponent)
    for name, measure in _SI.items()
    for prefix, exponent in {"": 0, **_PREFIXES}.items()
}
_NAMES = {
    prefix + name: _read(measure, exponent)
    for names, measure in _WORDS.items()
    for name in names.split()
    for prefix, exponent in {"": 0, **_LONG_PREFIXES}.items()
    if not prefix or len(name) > 3
}


@dataclass(frozen=True)
class Unit:
    """Base units and counted things with their powers, and the factor to the base units."""

    factor: Fraction = Fraction(1)
    dimensions: frozenset[tuple[str, int]] = frozenset()
    things: frozenset[tuple[str, int]] = frozenset()

    def is_compatible(self, other: "Unit") -> bool:
        """Whether both have the same dimension, and count the same things, one maybe in more detail."""
        return self.dimensions == other.dimensions and (self.things <= other.things or other.things <= self.things)


PERCENT = Unit(Fraction(1, 100), frozenset({("percent", 1)}))
# The factor to radians is irrational, so it is applied when angles are compared.
DEGREE = Unit(Fraction(0), frozenset({("rad", 1)}))


@dataclass(frozen=True)
class Quantity:
    """A value as text, the number that a word such as "million" multiplies it by, and its unit, None without one."""

    value: str
    unit: Unit | None = None
    scale: int = 1


def quantity(text: str) -> Quantity:
    """Split a normalized answer into its value and its unit.

    A text whose words cannot be a unit is returned unchanged.
    """
    if match := _PERCENT.search(text):
        return Quantity(text[: match.start()], PERCENT)
    if (match := _DEGREES.search(text)) and not _TRIGONOMETRY.search(text):
        unit = Unit(dimensions=frozenset({(f"degree {match[1]}", 1)})) if match[1] else DEGREE
        return Quantity(text[: match.start()], unit)
    currency = _CURRENCY.match(text)
    rest = text[currency.end() :] if currency else text
    measured = _measured(rest)
    if measured is None or not currency:
        return measured or Quantity(text)
    name = _CURRENCIES[currency[2].strip()]
    money = Unit(dimensions=frozenset({(name, 1)}))
    unit = money if measured.unit is None or measured.unit == money else _product(money, measured.unit)
    return Quantity(currency[1] + measured.value, unit, measured.scale)


def _measured(text: str) -> Quantity | None:
    """A number with the words after it; None if the words are not a unit."""
    if match := _WRITTEN.match(text):
        words = re.sub(r"\\text\{((?:[^{}]|\{-?\d\})*)\}", r" \1 ", match[2])
    elif match := _PLAIN.match(text):
        words = match[3]
        if not _are_units(words, bool(match[2])):
            return None
    else:
        return Quantity(text)
    scale, words = _scale_of(words)
    unit = _unit_of(words) if words else None
    return None if words and unit is None else Quantity(match[1], unit, scale)


def _scale_of(words: str) -> tuple[int, str]:
    first, _, rest = words.strip().partition(" ")
    scale = SCALES.get(first.lower().strip("."))
    return (scale, rest.strip()) if scale else (1, words.strip())


def _are_units(text: str, follows_space: bool) -> bool:
    """Whether plain letters after a number are units; in `6m`, `2xy` and `3R^2` they are variables."""
    words = re.findall(r"[a-zA-Z]+", text)
    if all(len(word) == 1 for word in words):
        return follows_space and _SINGLE_LETTERS.issuperset(words) and ("^" not in text or words[0] == "m")
    known = {"per", "square", "cubic", "sq", "cu"}
    is_product = not follows_space and not _PRODUCTS.isdisjoint(words)
    return not is_product and all(
        word in known or word in _FILLERS or word in _SINGLE_LETTERS or _measure(word) is not None
        or (len(word) > 3 and follows_space)
        for word in words
    )  # fmt: skip


def _unit_of(text: str) -> Unit | None:
    """The unit that a text names, or None if it is not a unit. An unknown word is a thing that is counted."""
    for pattern, symbols in _SPOKEN:
        text = pattern.sub(symbols, text)
    text = re.sub(r"\\(?:cdot|times)", " ", text).strip()
    factor, dimensions, things, sign, end = Fraction(1), Counter[str](), Counter[str](), 1, 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if not match:
            return None
        end = match.end()
        division, word, power, _ = match.groups()
        if division:
            sign = -1
        elif word and word.lower() in _CHANGES_VALUE and _measure(word) is None:
            return None
        elif word and word.lower() not in _FILLERS:
            factor *= _count(word, sign * int(power or 1), dimensions, things)
    unit = Unit(factor, _powers(dimensions), _powers(things))
    return unit if unit.dimensions or unit.things else None


def _count(word: str, power: int, dimensions: Counter[str], things: Counter[str]) -> Fraction:
    """Add a word to the powers of what it names; return its size."""
    measure = _measure(word)
    if measure is None:
        things[_singular(word)] += power
        return Fraction(1)
    size, bases = measure
    for name, exponent in bases:
        dimensions[name] += power * exponent
    return size**power


def _measure(word: str) -> tuple[Fraction, tuple[tuple[str, int], ...]] | None:
    """Size and base units, with their powers, of a unit of measurement; None for any other word."""
    return _SYMBOLS.get(word) or _NAMES.get(_singular(word))


def _product(*units: Unit) -> Unit:
    factor, dimensions, things = Fraction(1), Counter[str](), Counter[str]()
    for part in units:
        factor *= part.factor
        for counter, powers in ((dimensions, part.dimensions), (things, part.things)):
            for name, power in powers:
                counter[name] += power
    return Unit(factor, _powers(dimensions), _powers(things))


def _powers(counter: Counter[str]) -> frozenset[tuple[str, int]]:
    return frozenset((name, power) for name, power in counter.items() if power)


def _singular(word: str) -> str:
    if len(word) == 1 and word.isupper():
        return word
    word = word.lower()
    return word.removesuffix("s") if len(word) > 2 else word
