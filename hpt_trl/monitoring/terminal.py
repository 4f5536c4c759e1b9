"""The last lines of a terminal, kept for a panel while everything else scrolls above them.

`rich.live` moves the cursor up over what it drew last, so whatever was written past it meanwhile is lost: by another
rank, by a logger that took hold of stderr earlier, by a second rich console (TRL's table of completions). So the panel
stands below the terminal's scroll region instead, as apt's progress bar does, and nobody else need know of it.
"""

import atexit
import os
from collections.abc import Sequence
from typing import TextIO

# VT100: DECSC and DECRC save and restore the cursor, DECSTBM sets the lines that scroll and moves the cursor.
_SAVE, _RESTORE, _ALL_SCROLLS, _CLEAR_BELOW = "\x1b7", "\x1b8", "\x1b[r", "\x1b[J"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ROWS_LEFT = 6


def holds_panels(*streams: TextIO) -> bool:
    """Whether all of these are terminals that can keep lines apart and show any letter."""
    encoding = (streams[0].encoding or "").lower().replace("-", "")
    return (
        all(stream.isatty() for stream in streams) and os.environ.get("TERM", "dumb") != "dumb" and encoding == "utf8"
    )


class PinnedLines:
    """
    Lines at the bottom of a terminal.

    Args:
        stream: writes to the terminal.
        height: how many lines.
    """

    def __init__(self, stream: TextIO, height: int) -> None:
        self.stream = stream
        self.height = height
        self._size: os.terminal_size | None = None  # None while nothing is pinned
        self._owner = os.getpid()

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the terminal, now."""
        return os.get_terminal_size(self.stream.fileno())

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines, each no wider than the terminal; nothing where it has too few lines for them."""
        size = self.size
        if size.lines < self.height + _ROWS_LEFT:
            return self.close()
        frame = "" if size == self._size else self._pin(size)
        first = size.lines - self.height + 1
        rows = "".join(f"\x1b[{first + row};1H\x1b[2K{line}" for row, line in enumerate(lines[: self.height]))
        self._write(f"{frame}{_HIDE}{_SAVE}{rows}\x1b[0m{_RESTORE}{_SHOW}")

    def _pin(self, size: os.terminal_size) -> str:
        room = size.lines - self.height
        if self._size is None:
            atexit.register(self.close)
            # Push up what stands there, and step back to where it ended: then it is in what will scroll.
            place = "\n" * self.height + f"\x1b[{self.height}A{_SAVE}"
        else:
            # A new size has left everything anywhere.
            place = f"{_ALL_SCROLLS}\x1b[{room + 1};1H{_CLEAR_BELOW}\x1b[{room};1H{_SAVE}"
        self._size = size
        return f"{place}\x1b[1;{room}r{_RESTORE}"

    def close(self) -> None:
        """Give the lines back to the terminal, empty."""
        # A forked process ends without the terminal being its own to clear.
        if self._size is None or os.getpid() != self._owner:
            return
        first = self._size.lines - self.height + 1
        self._size = None
        atexit.unregister(self.close)
        self._write(f"{_SAVE}{_ALL_SCROLLS}\x1b[{first};1H{_CLEAR_BELOW}{_RESTORE}")

    def _write(self, text: str) -> None:
        # At once, so that what other processes write falls before or after it.
        self.stream.flush()
        os.write(self.stream.fileno(), text.encode("utf-8", errors="replace"))
