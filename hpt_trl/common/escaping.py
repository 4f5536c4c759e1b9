"""Foreign texts, such as names of folders, models and data sets, in files, Markdown and figures."""

import re

from hpt_trl.common.masking import mask_tokens

_MARKDOWN = re.compile(r"[\\`*\[\]|$~]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def encodable(text: str) -> str:
    r"""The text with lone surrogates, which no file can hold, as their escape sequences.

    Example:
        >>> encodable("caf\udce9")
        'caf\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    r"""The text with every white space as one space, and characters that cannot be shown as escape sequences.

    Example:
        >>> one_line("a\n b\x1b[0m")
        'a b\\x1b[0m'
    """
    shown = (character if character.isprintable() else repr(character)[1:-1] for character in " ".join(text.split()))
    return "".join(shown)


def markdown_text(text: str) -> str:
    r"""The text on one line for a paragraph, a heading or a cell of a table, without any markup or HTML.

    Example:
        >>> markdown_text("a|b <i> [x](y) my_name")
        'a\\|b &lt;i&gt; \\[x\\](y) my_name'
    """
    text = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    return re.sub("[&<>]", lambda match: _ENTITIES[match[0]], text)


def code_span(text: str) -> str:
    r"""The text as inline code, which cannot end within it; not for tables, where a `|` would end the cell.

    Example:
        >>> code_span("a"), code_span("a`b")
        ('`a`', '``a`b``')
    """
    text = one_line(text)
    fence = "`" * (1 + _longest_run(text))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def code_block(text: str, language: str) -> str:
    """The text as a block of code, which cannot end within it."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{encodable(text)}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def figure_text(text: str) -> str:
    r"""The text for matplotlib, which would otherwise read what is between two `$` as a formula; without secrets.

    Example:
        >>> figure_text("ckpt_$(date)_$USER")
        'ckpt_\\$(date)_\\$USER'
    """
    return one_line(mask_tokens(text)).replace("$", r"\$")
