r"""One spelling for answers that differ in spelling only, as text.

LaTeX and plain text have many spellings of one answer (`\dfrac12`, `1/2`, `½`). This module maps them to one. It drops
only what has no meaning: spaces, fonts, dollars, "the answer is". Equality is decided in `equality.py`.
"""

# ruff: noqa: RUF001 (this module handles look-alike characters on purpose)

import re
import unicodedata
from itertools import accumulate

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
        (r"\{:\}", ":"),
        (r"^\s*\*\*(.*)\*\*\s*$", r"\1"),  # bold in Markdown
        (r"(?<=[\w)}])\s*\*\*\s*(?=[\w({\\+-])", "^"),
        (r"\\!|(?<!\\)\$|\\(?:displaystyle|textstyle|limits|nolimits|centering)(?![a-zA-Z])|`", ""),
        (r"\\(?:bf|rm|it|sf|tt|bfseries|rmfamily)(?![a-zA-Z])\s*", ""),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
        (r"\\(?:lbrace)(?![a-zA-Z])", r"\\{"),
        (r"\\(?:rbrace)(?![a-zA-Z])", r"\\}"),
        (r"\\[lr]?vert(?![a-zA-Z])|\\mid(?![a-zA-Z])", "|"),
        (r"(?<!\\)\\[ ,;:>]|~|\\(?:quad|qquad|space|thinspace)(?![a-zA-Z])", " "),
        (r"\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf)|mbox|hbox|bm|boldsymbol)\s*\{", r"\\text{"),
        (r"\\(?:text)?color\s*\{[^{}]*\}|\\(?:underline|ensuremath|underbrace|overbrace)(?=\s*\{)", ""),
        (r"\\text\{\s*([ie])\s*\}", r"\1 "),
        (r"(?:\\text\{\s*)?\ball real(?: number)?s?\b\s*\}?", r"\\mathbb{R}"),
        (r"(?:\\text\{\s*)?\ball (?:the )?integers\b\s*\}?", r"\\mathbb{Z}"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\{([^{}]*)\\choose(?![a-zA-Z])([^{}]*)\}|^(\w+)\s*\\choose\s*(\w+)$", r"\\binom{\1\3}{\2\4}"),
        (r"\\operatorname\*?\s*\{(\w+)\}", r"\\\1 "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:leq|leqq|leqslant)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqq|geqslant)(?![a-zA-Z])|>=", r"\\ge "),
        (r"^\s*(?:\\(?:therefore|approx|implies|Rightarrow|sim)(?![a-zA-Z])|=)\s*", ""),
        (r"\\(?:simeq|doteq|thickapprox)(?![a-zA-Z])", r"\\approx "),
        (r"\\[ldc]?dots[bcmio]?(?![a-zA-Z])|\.\.\.|…", r"\\ldots "),
        (r"\\b?mod(?![a-zA-Z])", r"\\mod "),
        (r"\\(?:backslash|smallsetminus)(?![a-zA-Z])|(?<=\\mathbb\{[A-Z]\})\s*-\s*(?=\\\{)", r"\\setminus "),
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
        (r"\\frac\s*(\d)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\\pi|[a-zA-Z])\s*(\\pi|\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\\pi|[a-zA-Z])\s*(?=\{)", r"\\frac{\1}"),
        (r"\\lg(?![a-zA-Z])", r"\\log_{10}"),
        (r"\\log_\s*\{?\s*e\s*\}?(?![a-zA-Z])", r"\\ln "),
        (r"\\sqrt\s*(\d+(?:\.\d+)?|[a-zA-Z]|\\pi)", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])np\.", ""),
        (r"\+\s*/?\s*-(?=\s*[\d\\])", r"\\pm "),
        (rf"(?<![a-zA-Z\\])({_FUNCTIONS})(?=\s*[({{]|\s*\\|\s+[a-z](?![a-z]))", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
        (r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", r"\\infty "),
        (r"(\d)\.(?=\s*(?:[/)},]|$))", r"\1"),  # 3. is 3
        (r"\s+", " "),
    ]
]
# Words around an answer that say nothing about it.
_OPTION = re.compile(r"^\s*(?:\\text\{\s*)?\([A-J]\)\s*\}?\s*(?=[\d\\$-])")
_LEAD = re.compile(
    r"(?i:(?:\\text\{\s*)?(?:(?:therefore|thus|so|hence),? )?(?:the |my )?(?:final )?"
    r"(?:answer|solution)s?(?: is| are|:| =)+\s*\}?\s*)"
)
_TAIL = re.compile(r"(?i:,?\s*(?:\\text\{\s*)?\bis the (?:only |final |correct )*(?:answer|solution)\s*\}?)$")
_ONE_DOLLAR = re.compile(r"(?<!\\)\$(?=\s*\d[^$]*$)(?<!\$.)")
_SUBSCRIPTS = {ord(low): plain for low, plain in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789")}
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")


def clean(text: str) -> str:
    """Normalize the spelling of an answer: fractions, spaces, brackets, signs, thousands, functions."""
    text = _ONE_DOLLAR.sub(r"\\$", text, count=1)
    text = _VULGAR.sub(_latex_fraction, text)
    text = _RAISED.sub(lambda match: f"^{{{match.group().translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match.group().translate(_SUBSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS))
    text = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _without_wrapping(text)
    for framing in (_OPTION, _TAIL):
        text = framing.sub("", text)
    return _without_wrapping(_LEAD.sub("", text, count=1) if _LEAD.match(text) else text)


def squeezed(text: str) -> str:
    """The text without the spaces and braces that have no meaning: `5 6` is not `56`, but `a _ {1}` is `a_1`."""
    text = re.sub(r"(?<![\d.])\s+|\s+(?![\d.])", "", text)
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", text)


def _latex_fraction(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{numerator}}}{{{denominator}}}"


def _without_wrapping(text: str) -> str:
    """Strip quotes, punctuation, and braces or a `\\text{}` that enclose the entire text."""
    before = None
    while text != before:
        before = text
        text = text.strip().removesuffix("\\\\").strip('"').rstrip(".,;:。").strip()
        text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
        text = text.removeprefix(r"\(").removesuffix(r"\)").removeprefix(r"\[").removesuffix(r"\]")
        if text.startswith("{") and closing(text, 0) == len(text) - 1:
            text = text[1:-1]
        if (match := _ALL_TEXT.fullmatch(text)) and _MORE_THAN_WORDS.search(match[1]):
            text = match[1]
    return text


_ALL_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_MORE_THAN_WORDS = re.compile(r"[\d\\$^_+=<>,]|\b(?:and|or)\b|^.?$")

_OPENING, _CLOSING = "([{", ")]}"
_BRACKET = re.compile(r"[([{]|\\begin(?=\{)|([)\]}]|\\end(?=\{))")


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


def split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split a text at the separators outside all brackets and environments; return the parts and the separators."""
    parts, separators, start, depth, scanned = [], [], 0, 0, 0
    for match in separator.finditer(text):
        depth += sum(-1 if bracket[1] else 1 for bracket in _BRACKET.finditer(text, scanned, match.start()))
        scanned = match.start()
        if depth == 0:
            parts.append(text[start : match.start()].strip())
            separators.append(match.group().strip())
            start = match.end()
    return [*parts, text[start:].strip()], separators
