r"""Extraction of the answer from a completion: `</think>` and `\boxed{}`. Every function takes linear time."""

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*$")
_BRACE = re.compile(r"\\[\\{}]|[{}]|\\(?:boxed|fbox) ?(\w)(?!\w)")


def last_box_span(text: str) -> tuple[int, int] | None:
    r"""Start and end of the content of the last closed `\boxed{...}`."""
    spans = _box_spans(text)
    return spans[-1] if spans else None


def _box_spans(text: str) -> list[tuple[int, int]]:
    r"""Spans of the contents of all closed boxes in the order of their start, `\boxed 5` included."""
    # One pass with a stack: a collapsed policy may repeat an opening box ten thousand times.
    spans: list[tuple[int, int]] = []
    open_braces: list[int] = []
    for brace in _BRACE.finditer(text):
        if brace[1]:
            spans.append(brace.span(1))
        elif brace.group() == "{":
            open_braces.append(brace.end())
        elif brace.group() == "}" and open_braces:
            start = open_braces.pop()
            if _BOX.search(text, max(0, start - 13), start - 1):
                spans.append((start, brace.start()))
    return sorted(spans)


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed `\boxed{...}`, or None if there is none.

    math-verify uses the first box; models give their final answer in the last one.

    Example:
        >>> last_boxed(r"\boxed{1}, no: \boxed 2.")
        '2'
    """
    span = last_box_span(text)
    return None if span is None else text[slice(*span)]


def gold_content(text: str) -> str:
    """The content of all boxes of a gold answer, or the text itself if it has none."""
    outer: list[tuple[int, int]] = []
    for span in _box_spans(text):
        if not outer or span[0] > outer[-1][1]:
            outer.append(span)
    contents = dict.fromkeys(text[slice(*span)] for span in outer)
    return ", ".join(contents) if len(contents) > 1 else last_boxed(text) or text


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`, all of it if there is no such tag; None if a `<think>` is never closed."""
    _, _, answer = text.rpartition("</think>")
    return None if "<think>" in answer else answer
