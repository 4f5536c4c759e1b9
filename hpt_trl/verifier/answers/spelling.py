r"""Answers as text: where a completion gives one, and how it is spelled.

LaTeX and plain text have many spellings of one answer (`\dfrac12`, `1/2`, `½`). Here they become one, by text alone;
what is equal as mathematics is decided in `equality.py`.
"""

# ruff: noqa: RUF001 (signs that look like others are what this is about)

import re
import unicodedata
from fractions import Fraction
from itertools import accumulate

_BOX = re.compile(r"\\(?:boxed|fbox)\s*$")
_BRACE = re.compile(r"\\[\\{}]|[{}]")


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed `\boxed{...}`, or None where there is none.

    math-verify takes the first box it finds; the answer is the last.
    """
    span = last_box_span(text)
    return None if span is None else text[slice(*span)]


def last_box_span(text: str) -> tuple[int, int] | None:
    r"""Where the content of the last closed `\boxed{...}` begins and ends."""
    # One pass with a stack: a policy that collapses may repeat an opening box ten thousand times.
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
    """What follows the last `</think>`; all of it where nothing was thought; None if thinking never ends."""
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

# In this order: each finds what the ones before it have left.
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
        (r"^\s*(?:\\text\{\s*)?\([A-J]\)\s*\}?\s*(?=[\d\\$-])", ""),  # an option with its letter
        (r"\\text\{\s*([ie])\s*\}", r"\1 "),
        (r"(?<=\d)i(?![a-zA-Z])", " i"),  # math-verify takes 2i for two times a variable
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
    """One spelling for the same LaTeX or plain text: fractions, spaces, brackets, signs, thousands, functions."""
    text = _ONE_DOLLAR.sub(r"\\$", text, count=1)
    text = _VULGAR.sub(_spelled_fraction, text)
    text = _RAISED.sub(lambda found: f"^{{{found.group().translate(_SUPERSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS))
    text = "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _without_wrapping(text)
    return _without_wrapping(_TAIL.sub("", _LEAD.sub("", text, count=1) if _LEAD.match(text) else text))


def _spelled_fraction(found: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", found[0]).partition("⁄")
    return rf"\frac{{{above}}}{{{below}}}"


def _without_wrapping(text: str) -> str:
    """Without quotes and stops around it, and braces or `\\text{}` that hold all of it."""
    before = None
    while text != before:
        before = text
        text = text.strip().removesuffix("\\\\").strip("\"'").rstrip(".,;:。").strip()
        text = text.removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
        if text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
        if (found := _ALL_TEXT.fullmatch(text)) and _MORE_THAN_WORDS.search(found[1]):
            text = found[1]
    return text


_ALL_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_MORE_THAN_WORDS = re.compile(r"[\d\\$^_+=<>,]|\b(?:and|or)\b|^.?$")

_OPENING, _CLOSING = "([{", ")]}"


def closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`, of whatever shape; -1 if none does."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] in _OPENING) - (text[index] in _CLOSING)
        if depth == 0:
            return index
    return -1


def depth(text: str) -> int:
    """Most brackets that are open at once."""
    opened = [(each in _OPENING) - (each in _CLOSING) for each in text if each in _OPENING + _CLOSING]
    return max(accumulate(opened), default=0)


def split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Parts of a text between separators that stand outside all brackets."""
    parts, start, depth, read = [], 0, 0, 0
    for found in separator.finditer(text):
        between = text[read : found.start()]
        depth += sum(map(between.count, _OPENING)) - sum(map(between.count, _CLOSING))
        read = found.start()
        if depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
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
    """The rational number that a cleaned text spells, or None: integer, decimal, fraction, mixed, scientific."""
    text = text.strip()
    if found := _NUMBER.fullmatch(text):
        return _signed(found[1], Fraction(found[2]))
    if found := _THOUSANDS.fullmatch(text):
        return _signed(found[1], Fraction(re.sub("[ ,]", "", found[2]) + (found[3] or "")))
    if found := _RATIO.fullmatch(text):
        below = Fraction(found[5] or found[8])
        signs = found[1] + (found[2] or "") + (found[4] or found[7] or "")
        return _signed("-" * (signs.count("-") % 2), Fraction(found[3] or found[6]) / below) if below else None
    if found := _MIXED.fullmatch(text):
        below = Fraction(found[4] or found[6])
        return _signed(found[1], Fraction(found[3] or found[5]) / below + int(found[2])) if below else None
    if found := _SCIENTIFIC.fullmatch(text):
        return _signed(found[1], Fraction(found[2] or 1) * Fraction(10) ** int(found[3]))
    if found := _REPEATING.fullmatch(text):
        fixed, period = found[3], found[4]
        tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
        return _signed(found[1], Fraction(f"{found[2]}.{fixed or 0}") + tail)
    return None


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
