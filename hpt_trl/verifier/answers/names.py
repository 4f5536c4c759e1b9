r"""What may stand on the left of `= value` as the name of the value: `x`, `f(2)`, `\angle ABC`, `AB:CD`, `(x, y)`."""

import re

VARIABLE = r"(?:[a-zA-Z]|\\(?!infty|pi|text|sqrt|frac|mathbb)[a-z]+)(?:_(?:\w|\{[^{}]*\}))?"
_PLAIN = re.compile(rf"{VARIABLE}")
_DECORATED = re.compile(
    rf"(?:{VARIABLE}|(?:[A-Z][a-zA-Z]*|[a-z]{{4,}})(?:_(?:\w|\{{[^{{}}]*\}}))?)\s*"
    rf"(?:'|\^\{{?\\prime\}}?)*(?:\^\{{\(?-?\w\)?\}})?(?:\([^()]*\))?"
)
# Names of one quantity that is not a variable. A sum or a product such as `2x` is the side of an equation instead.
_QUANTITY = re.compile(
    r"\\frac\{[^\d]*[a-zA-Z][^\d]*\}\{[^\d]*[a-zA-Z][^\d]*\}|[a-zA-Z]/[a-zA-Z]|\\text\{[^{}]*\}"
    r"|m?\s*\\(?:angle|triangle)\s*\{?[A-Z\d ]+\}?|\\\|.*\\\||\|[A-Z]{2,}\|"
    r"|\\(?:sin|cos|tan|cot|sec|csc|log|ln|deg|min|max|gcd|lcm|lim|arg|dim|det|vec|overline|hat|bar|overrightarrow)"
    r"(?![a-zA-Z]).*|\\(?:mathbb\{[PE]\}|Pr)\s*[(\[].*[)\]]|[A-Z]{2,}(?:\s*\\cdot\s*[A-Z]{2,})*"
    r"|[A-Z]\[.*\]",
    re.DOTALL,
)
_NOT_VARIABLES = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|log|ln|deg|min|max|gcd|lcm|lim|arg|dim|det|frac|sqrt|pi|infty|cdot|circ)(?![a-zA-Z])"
)
_RATIO_OF_NAMES = re.compile(r"[A-Za-z]\w*(?:_(?:\w|\{\w+\}))?(?:\s*:\s*[A-Za-z]\w*(?:_(?:\w|\{\w+\}))?)+")
_TUPLE = re.compile(rf"\(\s*{VARIABLE}(?:\s*,\s*{VARIABLE})+\s*\)")
_ORDER = ("rho", "r", "theta", "varphi", "phi")


def is_variable(text: str) -> bool:
    """Whether a text is one variable, with or without an index."""
    return _PLAIN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text can be the name of a value."""
    if not re.search("[a-zA-Z]", text):
        return False
    if any(pattern.fullmatch(text) for pattern in (_DECORATED, _TUPLE, _RATIO_OF_NAMES)):
        return True
    outside = re.sub(r"\{[^{}]*\}|\([^()]*\)|\|[^|]*\|", "", re.sub(r"\{[^{}]*\}", "", text))
    has_variable = re.search("[A-Za-z]", _NOT_VARIABLES.sub("", text))
    return (
        _QUANTITY.fullmatch(re.sub(r"_(?:\w|\{\w*\})", "", text)) is not None
        and has_variable is not None
        and not re.search(r"[+-]", outside)
    )


def mentions(text: str, variable: str) -> bool:
    """Whether an expression contains a variable."""
    name = re.escape(normal_name(variable))
    return re.search(rf"(?<![a-zA-Z\\]){name}(?![a-zA-Z_])", re.sub(r"_\{(\w)\}", r"_\1", text)) is not None


def normal_name(name: str) -> str:
    r"""One spelling of a name: `\mathbb{P}(A)` and `\Pr[A]` are `P(A)`, `a_{n}` is `a_n`.

    Example:
        >>> normal_name(r"\Pr[A]"), normal_name(r"m\angle ABC"), normal_name("a_{n}")
        ('P(A)', '\\angleABC', 'a_n')
    """
    name = re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r"\1", name)
    name = re.sub(r"\\mathbb\{([PE])\}|\\(P)r(?![a-z])", r"\1\2", name)
    name = re.sub(r"^([PE])\s*\[(.*)\]$", r"\1(\2)", name)
    name = re.sub(r"^m\s*(?=\\angle)|\s", "", name)
    return re.sub(r"([_^])\{(\w)\}", r"\1\2", name)


def tuple_names(name: str) -> tuple[str, ...]:
    """The names in `(x, y)`; empty for any other name."""
    return tuple(map(normal_name, name.strip("() ").split(","))) if _TUPLE.fullmatch(name) else ()


def order_of_names(name: str) -> tuple[int, str]:
    """Sorting key of the usual order: alphabetical, and of angles after the radius."""
    plain = name.lstrip("\\")
    return (_ORDER.index(plain), "") if plain in _ORDER else (len(_ORDER), plain)


def is_ordered(names: tuple[str, ...]) -> bool:
    """Whether names are in their usual order."""
    return list(names) == sorted(names, key=order_of_names)


def same_name(gold: str, answer: str) -> bool:
    """Whether two names, both given, name the same value: `y` and `f(x)` do, `f(2)` and `f(3)` do not."""
    if gold == answer:
        return True
    pair = {gold, answer}
    return "y" in pair and any(re.fullmatch(r"[a-zA-Z]\([a-z]\)", name) for name in pair)


def with_argument_of(answer_name: str, gold_name: str) -> tuple[str, str] | None:
    """The arguments, of the answer and the gold, in which `f(t)` and `f(x)` differ; None if they differ elsewhere."""
    gold, answer = (re.fullmatch(r"(.+)\(([a-z])\)|([a-z])_([a-z])", name) for name in (gold_name, answer_name))
    if not gold or not answer or (gold[1], gold[3]) != (answer[1], answer[3]):
        return None
    arguments = answer[2] or answer[4], gold[2] or gold[4]
    return arguments if arguments[0] != arguments[1] else None
