"""Files that appear complete or not at all, whenever the process is killed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"
"""Part of the name of every file or folder that is still being written."""


@contextmanager
def atomic_path(path: Path, durable: bool = True, per_process: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and give it that name when the block ends without an error.

    Args:
        path: the file, or the folder that must not exist yet. Missing parent folders are created.
        durable: flush the bytes and the folder's entry to the disk, so that they survive a loss of power.
        per_process: use a temporary name of this process's own, where two processes may write the same path at once.
            A killed process leaves that file behind; without the option, the next writer replaces it.
    """
    process = f".{os.getpid()}" if per_process else ""
    # Hidden, and with the suffix kept: readers of a folder skip it, and writers that choose a format by suffix work.
    temporary = path.with_name(f".{path.stem}{process}{UNFINISHED}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if durable:
            flush(temporary)
        os.replace(temporary, path)
        if durable:
            flush(path.parent)
    finally:
        _remove(temporary)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file that is there completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Make sure that a file's bytes, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush folders.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
