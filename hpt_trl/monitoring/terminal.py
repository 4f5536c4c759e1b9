"""Reserves the last lines of a terminal for a panel; all other output scrolls above them.

`rich.live` moves the cursor up over its last frame, which overwrites what has been written in the meantime by another
rank, by a logger that holds an earlier reference to stderr, or by a second rich console (TRL's table of completions).
This panel is placed below the terminal's scroll region instead, as apt's progress bar is, so other writers need not
know about it.
"""

import atexit
import os
from collections.abc import Sequence
from typing import TextIO

# VT100: DECSC and DECRC save and restore the cursor, DECSTBM sets the lines that scroll and moves the cursor.
_SAVE, _RESTORE, _ALL_SCROLLS, _CLEAR_BELOW = "\x1b7", "\x1b8", "\x1b[r", "\x1b[J"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_MIN_ROWS_ABOVE = 6


def supports_panels(*streams: TextIO) -> bool:
    """Whether all streams are terminals that support a scroll region and UTF-8."""
    encoding = (streams[0].encoding or "").lower().replace("-", "")
    return (
        all(stream.isatty() for stream in streams) and os.environ.get("TERM", "dumb") != "dumb" and encoding == "utf8"
    )


class PinnedLines:
    """
    Lines at the bottom of a terminal.

    Args:
        stream: stream that is connected to the terminal.
        height: number of lines.
    """

    def __init__(self, stream: TextIO, height: int) -> None:
        self.stream = stream
        self.height = height
        self._size: os.terminal_size | None = None  # None while no lines are reserved
        self._owner = os.getpid()

    @property
    def size(self) -> os.terminal_size:
        """Current number of columns and lines of the terminal."""
        return os.get_terminal_size(self.stream.fileno())

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, none of them wider than the terminal; show nothing if the terminal has too few lines."""
        size = self.size
        if size.lines < self.height + _MIN_ROWS_ABOVE:
            return self.close()
        reserve = "" if size == self._size else self._reserve(size)
        first = size.lines - self.height + 1
        rows = "".join(f"\x1b[{first + row};1H\x1b[2K{line}" for row, line in enumerate(lines[: self.height]))
        self._write(f"{reserve}{_HIDE}{_SAVE}{rows}\x1b[0m{_RESTORE}{_SHOW}")

    def _reserve(self, size: os.terminal_size) -> str:
        scrolling_lines = size.lines - self.height
        if self._size is None:
            atexit.register(self.close)
            # Scroll the existing text up and move the cursor back to its end, so that it is in the scroll region.
            place = "\n" * self.height + f"\x1b[{self.height}A{_SAVE}"
        else:
            # After a resize, the terminal may have moved everything.
            place = f"{_ALL_SCROLLS}\x1b[{scrolling_lines + 1};1H{_CLEAR_BELOW}\x1b[{scrolling_lines};1H{_SAVE}"
        self._size = size
        return f"{place}\x1b[1;{scrolling_lines}r{_RESTORE}"

    def close(self) -> None:
        """Clear the lines and return them to the terminal."""
        # A forked process must not clear the terminal of its parent.
        if self._size is None or os.getpid() != self._owner:
            return
        first = self._size.lines - self.height + 1
        self._size = None
        atexit.unregister(self.close)
        self._write(f"{_SAVE}{_ALL_SCROLLS}\x1b[{first};1H{_CLEAR_BELOW}{_RESTORE}")

    def _write(self, text: str) -> None:
        # In a single system call, so that output of other processes comes before or after it.
        self.stream.flush()
        os.write(self.stream.fileno(), text.encode("utf-8", errors="replace"))
