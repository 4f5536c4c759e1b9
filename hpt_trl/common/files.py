"""Atomic writing: files appear complete or not at all, even if the process is killed."""

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
    """Yield a temporary path next to `path`, and rename it to `path` if the block ends without an error.

    Args:
        path: the file to write, or a folder that must not exist yet. Missing parent folders are created.
        durable: flush the content and the directory entry to disk, so that they survive a power failure.
        per_process: include the process id in the temporary name, in case two processes write the same path
            concurrently. A killed process leaves its temporary file behind; without this option, the next writer
            replaces it.
    """
    process = f".{os.getpid()}" if per_process else ""
    # Hidden, so that readers of the folder skip it; with the suffix, because some writers choose the format by it.
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
    """Write a text file that appears complete or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Make sure that a file's content, or a folder's entries, survive a power failure."""
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
