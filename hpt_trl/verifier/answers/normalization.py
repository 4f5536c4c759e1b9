r"""Extraction and normalization of answers, as text.

LaTeX and plain text have many spellings of one answer (`\dfrac12`, `1/2`, `½`). This module maps them to one spelling;
mathematical equality is decided in `equality.py`.
"""

# ruff: noqa: RUF001 (this module handles look-alike characters on purpose)

import re
import unicodedata
from fractions import Fraction
from itertools import accumulate

_BOX = re.compile(r"\\(?:boxed|fbox)\s*$")
_BRACE = re.compile(r"\\[\\{}]|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed `\boxed{...}`, or None if there is none.

    math-verify uses the first box; models give their final answer in the last one.
    """
    span = last_box_span(text)
    return None if span is None else text[slice(*span)]


def last_box_span(text: str) -> tuple[int, int] | None:
    r"""Start and end of the content of the last closed `\boxed{...}`."""
    # One pass with a stack: a collapsed policy may repeat an opening box ten thousand times.
    span: tuple[int, int] | None = None
    open_braces: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            open_braces.append(brace.end())
        elif brace.group() == "}" and open_braces:
            start = open_braces.pop()
            if (span is None or start > span[0]) and _BOX.search(text, max(0, start - 13), start - 1):
                span = start, brace.start()
    return span


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`, all of it if there is no such tag; None if a `<think>` is never closed."""
    _, _, answer = text.rpartition("</think>")
    return None if "<think>" in answer else answer


_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "⁄": "/",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ",
        "√": r"\sqrt ", "≈": r"\approx ", "∴": "", "ℝ": r"\mathbb{R}", "θ": r"\theta ",
        "’": "'", "′": "'", "“": '"', "”": '"', "∨": " or ", "，": ",", "、": ",",
    }
)  # fmt: skip
_SUPERSCRIPTS = {ord(raised): plain for raised, plain in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")}
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt"

# The order matters: each pattern sees the result of the previous ones.
_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<=\d)\s*(?:,\s*\\!|\\!\s*,|\{,\}|\\,)\s*(?=\d{3}(?!\d))", ""),  # thousands
        (r"(?<=\d)\{,\}(?=\d)", "."),  # decimal comma
        (r"\\!|(?<!\\)\$|\\(?:displaystyle|textstyle|limits|nolimits|centering)(?![a-zA-Z])|[`*]{2,}|`", ""),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
        (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        (r"\\[lr]?vert(?![a-zA-Z])|\\mid(?![a-zA-Z])", "|"),
        (r"(?<!\\)\\[ ,;:>]|~|\\(?:quad|qquad|space|thinspace)(?![a-zA-Z])", " "),
        (r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf)|mbox|hbox|bm|boldsymbol)\s*\{", r"\\text{"),
        (r"\\text\{\s*\}", ""),
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:underline|ensuremath|underbrace|overbrace)(?=\s*\{)", ""),
        (r"^\s*(?:\\text\{\s*)?\([A-J]\)\s*\}?\s*(?=[\d\\$-])", ""),  # the letter of a multiple-choice option
        (r"\\text\{\s*([ie])\s*\}", r"\1 "),
        (r"(?<=\d)i(?![a-zA-Z])", " i"),  # math-verify reads 2i as 2 times a variable
        (r"(?:\\text\{\s*)?\ball real(?: number)?s?\b\s*\}?", r"\\mathbb{R}"),
        (r"(?:\\text\{\s*)?\ball (?:the )?integers\b\s*\}?", r"\\mathbb{Z}"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\operatorname\*?\s*\{(\w+)\}", r"\\\1 "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqq|leqslant)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqq|geqslant)(?![a-zA-Z])|>=", r"\\ge "),
        (r"^\s*(?:\\(?:therefore|approx|implies|Rightarrow|sim)(?![a-zA-Z])|=)\s*", ""),
        (r"\\approx(?![a-zA-Z])", "="),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
        (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset "),
        (r"\\(?:infin|infinity)(?![a-zA-Z])", r"\\infty "),
        (r"\\(?:R|Reals?|reals)(?![a-zA-Z])", r"\\mathbb{R}"),
        (r"\\mathbb\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb{\1}"),
        (r"\\(?:lor|vee)(?![a-zA-Z])|\\text\{\s*,?\s*or\s*\}", " or "),
        (r"\\(?:land|wedge)(?![a-zA-Z])|\\text\{\s*,?\s*and\s*\}", " and "),
        (r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ|\\degree(?![a-zA-Z])", r"^\\circ "),
        (r"\{\s*\}(?=\^)", ""),
        (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*(?=\{)", r"\\frac{\1}"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\w)", r"\\frac\1{\2}"),
        (r"\\frac\s*(\\pi|[a-zA-Z])\s*(\\pi|\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\\pi|[a-zA-Z])\s*(?=\{)", r"\\frac{\1}"),
        (r"\\frac\s+(?=\{)", r"\\frac"),
        (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
        (r"\\log_\s*\{?\s*e\s*\}?(?![a-zA-Z])", r"\\ln "),
        (r"(\\(?:sin|cos|tan|cot|sec|csc))\s*[({]?\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*[)}]?", r"\1(\\frac{\2\\pi}{180})"),
        (r"\\sqrt\s*(\d+(?:\.\d+)?|[a-zA-Z]|\\pi)", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])np\.", ""),
        (r"\*\*", "^"),
        (r"\*", r"\\cdot "),
        (r"\+\s*/?\s*-(?=\s*[\d\\])", r"\\pm "),
        (rf"(?<![a-zA-Z\\])({_FUNCTIONS})(?=\s*[({{]|\s*\\)", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"(\d)\.(?=\s*(?:[/)},]|$))", r"\1"),  # 3. is 3
        (r"(?<![\d.}])\.(?=\d)", "0."),
        (r"\s+", " "),
    ]
]
_LEAD = re.compile(
    r"(?i:(?:\\text\{\s*)?(?:(?:therefore|thus|so|hence),? )?(?:the |my )?(?:final )?"
    r"(?:answer|solution)s?(?: is| are|:| =)+\s*\}?\s*)"
)
_ONE_DOLLAR = re.compile(r"(?<!\\)\$(?=\s*\d[^$]*$)(?<!\$.)")
_TAIL = re.compile(
    r"\s*(?:,?\s*(?:\\text\{\s*)?\(?(?:for (?:all|any|every|each)|where)\b.*|,?\s*\\forall.*"
    r"|[,(]\s*[a-z]\s*\\in\s*\\mathbb\{[ZNR]\}\s*\)?)$",
    re.DOTALL,
)


def clean(text: str) -> str:
    """Normalize the spelling of an answer: fractions, spaces, brackets, signs, thousands, functions."""
    text = _ONE_DOLLAR.sub(r"\\$", text, count=1)
    text = _VULGAR.sub(_latex_fraction, text)
    text = _RAISED.sub(lambda match: f"^{{{match.group().translate(_SUPERSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS))
    text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _without_wrapping(text)
    return _without_wrapping(_TAIL.sub("", _LEAD.sub("", text, count=1) if _LEAD.match(text) else text))


def _latex_fraction(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _without_wrapping(text: str) -> str:
    """Strip quotes, punctuation, and braces or a `\\text{}` that enclose the entire text."""
    before = None
    while text != before:
        before = text
        text = text.strip().removesuffix("\\\\").strip("\"'").rstrip(".,;:。").strip()
        text = text.removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
        if text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
        if (match := _ALL_TEXT.fullmatch(text)) and _MORE_THAN_WORDS.search(match[1]):
            text = match[1]
    return text


_ALL_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_MORE_THAN_WORDS = re.compile(r"[\d\\$^_+=<>,]|\b(?:and|or)\b|^.?$")

_OPENING, _CLOSING = "([{", ")]}"


def closing(text: str, start: int) -> int:
    """Index of the bracket, of any shape, that closes the one at `start`; -1 if there is none."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in _OPENING) - (text[index] in _CLOSING)
        if depth == 0:
            return index
    return -1


def depth(text: str) -> int:
    """Maximum nesting depth of the brackets."""
    changes = [(char in _OPENING) - (char in _CLOSING) for char in text if char in _OPENING + _CLOSING]
    return max(accumulate(changes), default=0)


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split a text at the separators that are outside all brackets."""
    parts, start, depth, scanned = [], 0, 0, 0
    for match in separator.finditer(text):
        between = text[scanned : match.start()]
        depth += sum(map(between.count, _OPENING)) - sum(map(between.count, _CLOSING))
        scanned = match.start()
        if depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    return [part.strip() for part in [*parts, text[start:]]]


_DECIMAL = r"\d{1,300}(?:\.\d{1,300})?"
_NUMBER = re.compile(rf"([+-]?)\s*({_DECIMAL})")
_RATIO = re.compile(
    rf"([+-]?)\s*(?:\\frac\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}\{{\s*([+-]?)\s*({_DECIMAL})\s*\}}|({_DECIMAL})\s*/\s*([+-]?)({_DECIMAL}))"
)
_MIXED = re.compile(r"([+-]?)\s*(\d+)\s*(?:\\frac\{\s*(\d+)\s*\}\{\s*(\d+)\s*\}|[ +](\d+)\s*/\s*(\d+))")
_SCIENTIFIC = re.compile(
    rf"([+-]?)\s*(?:({_DECIMAL})\s*(?:e|E|(?:\\times|\\cdot|x)\s*10\s*\^)|10\s*\^)\s*\{{?\s*([+-]?\d{{1,3}})\s*\}}?"
)
_THOUSANDS = re.compile(r"([+-]?)\s*(\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+)(\.\d+)?")
_REPEATING = re.compile(r"([+-]?)\s*(\d+)\.(\d*)\\(?:overline|bar|dot)\s*\{?\s*(\d+)\s*\}?")


def number(text: str) -> Fraction | None:
    """Parse a normalized text as a rational number (integer, decimal, fraction, mixed, scientific), or None."""
    text = text.strip()
    if match := _NUMBER.fullmatch(text):
        return _signed(match[1], Fraction(match[2]))
    if match := _THOUSANDS.fullmatch(text):
        return _signed(match[1], Fraction(re.sub("[ ,]", "", match[2]) + (match[3] or "")))
    if match := _RATIO.fullmatch(text):
        denominator = Fraction(match[5] or match[8])
        if not denominator:
            return None
        signs = match[1] + (match[2] or "") + (match[4] or match[7] or "")
        return _signed("-" * (signs.count("-") % 2), Fraction(match[3] or match[6]) / denominator)
    if match := _MIXED.fullmatch(text):
        denominator = Fraction(match[4] or match[6])
        if not denominator:
            return None
        return _signed(match[1], Fraction(match[3] or match[5]) / denominator + int(match[2]))
    if match := _SCIENTIFIC.fullmatch(text):
        return _signed(match[1], Fraction(match[2] or 1) * Fraction(10) ** int(match[3]))
    if match := _REPEATING.fullmatch(text):
        fixed, period = match[3], match[4]
        tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return _signed(match[1], Fraction(f"{match[2]}.{fixed or 0}") + tail)
    return None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
