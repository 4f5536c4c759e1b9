r"""Units of an answer: percent, degrees, money, units of measurement, or counted things."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

# Unit names and their size, in terms of the first unit of the dimension.
_TABLES = {
    "length": "m meter metre:1 mm millimeter millimetre:1/1000 cm centimeter centimetre:1/100 "
    "km kilometer kilometre:1000 nm nanometer:1/1000000000 "
    "in inch inche:127/5000 ft foot feet:381/1250 yd yard:1143/1250 mi mile:201168/125",
    "mass": "g gram:1 mg milligram:1/1000 kg kilogram:1000 lb pound:45359237/100000 oz ounce:45359237/1600000",
    "time": "s sec second:1 ms millisecond:1/1000 min minute:60 h hr hour:3600 day:86400 week:604800",
    "volume": "l liter litre:1 ml milliliter millilitre:1/1000",
    "money": "dollar usd:1 cent:1/100",
    "euro": "euro eur:1",
    "angle": "rad radian:1",
}
_MEASURES = {
    name: (dimension, Fraction(factor))
    for dimension, table in _TABLES.items()
    for names, factor in re.findall(r"([a-z ]+):([\d/]+)", table)
    for name in names.split()
}
_SHORT = frozenset(name for name in _MEASURES if len(name) == 1)
_NOT_UNITS = frozenset({"or", "and", "to", "pi", "is", "i", "e", "mod", "choose"})
_PRODUCTS = frozenset({"mg", "ms", "nm", "mi", "ml"})  # units only after a space: `2mg` is the product 2*m*g
_FILLERS = frozenset({"of", "the", "a", "an"})

_PERCENT = re.compile(r"\s*(?:\\?%|(?:\\text\{)?\s*(?:per\s?cent|percent(?:age)?|pct)\s*\.?\}?)\s*$", re.IGNORECASE)
_DEGREES = re.compile(
    r"\s*(?:\^\s*\{?\s*\\circ\s*\}?\s*(?:\\text\{)?\s*([CFK]?)\s*\}?|(?:\\text\{)?\s*deg(?:ree)?s?\s*\}?)$"
)
_CURRENCY = re.compile(r"([+-]?)\s*(\\?\$|€|£|USD\s|EUR\s)\s*(?=[\d.\\-])")
_CURRENCIES = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "pound sterling", "USD": "dollar", "EUR": "euro"}
_POWER = r"(?:\s*\^\s*\{?\s*-?\d\s*\}?)"
_WRITTEN = re.compile(
    rf"^(.*?[^\s\\])\s*((?:(?:/|\\cdot|\\times)?\s*\\text\{{(?:[^{{}}]|\{{-?\d\}})*\}}{_POWER}?\s*)+)$"
)
# Without \text{}, words are units only after a number: `2k` and `5x` are products.
_PLAIN = re.compile(
    r"^([+-]?[\d.,]+|[+-]?\d*\s*\\frac\{\d+\}\{\d+\}|[+-]?\d+/\d+|[+-]?[\d.]*\s*\\pi(?=\s+[a-z]{2}))(\s*)"
    rf"([a-zA-Z][a-zA-Z. /]*{_POWER}?(?:/[a-z]+{_POWER}?)?)$"
)
_SPOKEN = [
    (re.compile(r"\bmph\b"), "mile / hour"),
    (re.compile(r"\b(?:kph|kmh)\b"), "km / hour"),
    (re.compile(r"\b(?:square|sq\.?)\s+([a-zA-Z]+)"), r"\1^2 "),
    (re.compile(r"\b(?:cubic|cu\.?)\s+([a-zA-Z]+)"), r"\1^3 "),
    (re.compile(r"([a-zA-Z]+)\s+squared\b"), r"\1^2 "),
    (re.compile(r"([a-zA-Z]+)\s+cubed\b"), r"\1^3 "),
]
_TOKEN = re.compile(r"(/|per\b)|([^\W\d_]+)\.?\s*(?:\^?\s*\{?\s*(-?\d)\s*\}?)?")


@dataclass(frozen=True)
class Unit:
    """Dimensions with their powers, and the factor to the first unit of each dimension."""

    factor: Fraction = Fraction(1)
    dimensions: frozenset[tuple[str, int]] = frozenset()

    def is_compatible(self, other: "Unit") -> bool:
        """Whether both count the same things, one in more detail: "students" and "students of the class"."""
        names, other_names = ({name for name, _ in unit.dimensions} for unit in (self, other))
        return (names | other_names).isdisjoint(_TABLES) and (names <= other_names or other_names <= names)


PERCENT = Unit(Fraction(1, 100), frozenset({("per cent", 1)}))
# The factor to radians is irrational, so it is applied when angles are compared.
DEGREE = Unit(Fraction(0), frozenset({("angle", 1)}))


def split_unit(text: str) -> tuple[str, Unit | None]:
    """Split a normalized answer into its value and its unit, or None if it has no unit."""
    if match := _PERCENT.search(text):
        return text[: match.start()], PERCENT
    if match := _DEGREES.search(text):
        return text[: match.start()], Unit(dimensions=frozenset({(f"degree {match[1]}", 1)})) if match[1] else DEGREE
    if match := _CURRENCY.match(text):
        value, _ = split_unit(text[match.end() :])
        return match[1] + value, unit_of(_CURRENCIES[match[2].strip()])
    if match := _WRITTEN.match(text):
        unit = unit_of(re.sub(r"\\text\{((?:[^{}]|\{-?\d\})*)\}", r" \1 ", match[2]))
        return (match[1], unit) if unit else (text, None)
    if match := _PLAIN.match(text):
        unit = unit_of(match[3]) if _are_units(match[3], bool(match[2])) else None
        return (match[1], unit) if unit else (text, None)
    return text, None


def _are_units(text: str, follows_space: bool) -> bool:
    """Whether plain letters after a number are units; in `6m`, `2xy` and `3R^2` they are variables."""
    words = re.findall(r"[a-zA-Z]+", text)
    if all(len(word) == 1 for word in words):
        return follows_space and _SHORT.issuperset(words) and ("^" not in text or words[0] == "m")
    known = {"mph", "kmh", "kph", "per", "square", "cubic", "sq", "cu"} | _MEASURES.keys()
    is_product = not follows_space and not _PRODUCTS.isdisjoint(words)
    return not is_product and all(
        _singular(word) in known or word in _SHORT or (len(word) > 3 and follows_space) or word in _FILLERS
        for word in words
    )


def unit_of(text: str) -> Unit | None:
    """The unit that a text names; each unknown word becomes a dimension of its own."""
    for pattern, symbols in _SPOKEN:
        text = pattern.sub(symbols, text)
    factor, powers, sign = Fraction(1), Counter[str](), 1
    for division, word, written_power in _TOKEN.findall(re.sub(r"\\(?:cdot|times)", " ", text)):
        if division:
            sign = -1
            continue
        name = _singular(word)
        if name in _NOT_UNITS:
            return None
        if name in _FILLERS:
            continue
        dimension, size = _MEASURES.get(name, (name, Fraction(1)))
        power = sign * int(written_power or 1)
        factor *= size**power
        powers[dimension] += power
    dimensions = frozenset((name, power) for name, power in powers.items() if power)
    return Unit(factor, dimensions) if dimensions else None


def _singular(word: str) -> str:
    if len(word) == 1 and word.isupper():
        return word  # N is newton, n is not
    word = word.lower()
    return word if word in _MEASURES or len(word) < 3 else word.removesuffix("s")
