r"""What stands beside the number of an answer: per cent, degrees, money, units of measure, or things counted."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

# Names, and how many of the dimension's first unit they are.
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
_PRODUCTS = frozenset({"mg", "ms", "nm", "mi", "ml"})  # units only where they stand apart: 2mg is a weight
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
# Without \text{}, words are units only behind a number: `2k` and `5x` are products.
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
    """Dimensions with their powers, and the factor to the dimensions' first units."""

    factor: Fraction = Fraction(1)
    dimensions: frozenset[tuple[str, int]] = frozenset()

    def may_say_less(self, other: "Unit") -> bool:
        """Whether one names the things counted more fully: students, and students of the class."""
        ours, theirs = ({name for name, _ in each.dimensions} for each in (self, other))
        return (ours | theirs).isdisjoint(_TABLES) and (ours <= theirs or theirs <= ours)


PERCENT = Unit(Fraction(1, 100), frozenset({("per cent", 1)}))
# An angle; its factor to radians is no fraction, and applied where angles are compared.
DEGREE = Unit(Fraction(0), frozenset({("angle", 1)}))


def split_unit(text: str) -> tuple[str, Unit | None]:
    """A cleaned answer as its value and its unit, None where it has none."""
    if found := _PERCENT.search(text):
        return text[: found.start()], PERCENT
    if found := _DEGREES.search(text):
        return text[: found.start()], Unit(dimensions=frozenset({(f"degree {found[1]}", 1)})) if found[1] else DEGREE
    if found := _CURRENCY.match(text):
        value, _ = split_unit(text[found.end() :])
        return found[1] + value, unit_of(_CURRENCIES[found[2].strip()])
    if found := _WRITTEN.match(text):
        unit = unit_of(re.sub(r"\\text\{((?:[^{}]|\{-?\d\})*)\}", r" \1 ", found[2]))
        return (found[1], unit) if unit else (text, None)
    if found := _PLAIN.match(text):
        unit = unit_of(found[3]) if _are_units(found[3], bool(found[2])) else None
        return (found[1], unit) if unit else (text, None)
    return text, None


def _are_units(text: str, stands_apart: bool) -> bool:
    """Whether plain letters behind a number are units and not variables, as in `6m`, `2xy` and `3R^2`."""
    words = re.findall(r"[a-zA-Z]+", text)
    if all(len(word) == 1 for word in words):
        return stands_apart and _SHORT.issuperset(words) and ("^" not in text or words[0] == "m")
    known = {"mph", "kmh", "kph", "per", "square", "cubic", "sq", "cu"} | _MEASURES.keys()
    is_product = not stands_apart and not _PRODUCTS.isdisjoint(words)
    return not is_product and all(
        _singular(word) in known or word in _SHORT or (len(word) > 3 and stands_apart) or word in _FILLERS
        for word in words
    )


def unit_of(text: str) -> Unit | None:
    """The unit that words name; unknown words count as things of their own kind."""
    for pattern, symbols in _SPOKEN:
        text = pattern.sub(symbols, text)
    factor, powers, sign = Fraction(1), Counter[str](), 1
    for slash, word, written_power in _TOKEN.findall(re.sub(r"\\(?:cdot|times)", " ", text)):
        if slash:
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
