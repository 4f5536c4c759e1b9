"""`hpt_complete.json`: marks a checkpoint as complete, and holds the size and the SHA-256 of each of its files.

It is written last. A folder that a killed run left half-written is recognized by its absence, a truncated file by its
size, and any other damage, also a file that belongs to another checkpoint, by its checksum.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpt_trl.common.files import UNFINISHED, atomic_path, flush, write_atomically

MARKER = "hpt_complete.json"
# Hashing releases the interpreter lock. More readers than this do not speed up most disks.
_MAX_THREADS = 8


class _MarkerError(Exception):
    """A marker that is missing or was not written by `mark_complete`."""


def clear_checkpoint(folder: Path) -> None:
    """Delete everything in a checkpoint that is about to be written again, the marker first.

    Files of an earlier run with more processes would otherwise become part of the new checkpoint. Several processes may
    do this concurrently.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name != MARKER):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def mark_complete(folder: Path, diverged: str | None = None) -> None:
    """Record that all processes have written their files, and the size and checksum of each file.

    Args:
        folder: the checkpoint.
        diverged: how it is known that the policy has diverged, if it has.
    """
    # A run that was killed while writing may have left a temporary file.
    contents = [path for path in sorted(folder.rglob("*")) if UNFINISHED not in path.name]
    for path in contents:
        flush(path)
    names = [path.relative_to(folder).as_posix() for path in contents if path.is_file()]
    sizes = {name: (folder / name).stat().st_size for name in names}
    marker = {"files": sizes, "sha256": _checksums(folder, names)} | ({"diverged": diverged} if diverged else {})
    write_atomically(folder / MARKER, json.dumps(marker, indent=1))


def mark_diverged(folder: Path, reason: str) -> None:
    """Note in the marker of a complete checkpoint that its policy has diverged."""
    marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    with atomic_path(folder / MARKER, per_process=True) as temporary:  # several processes may do so
        temporary.write_text(json.dumps(marker | {"diverged": reason}, indent=1), encoding="utf-8")


def divergence_reason(folder: Path) -> str | None:
    """How it is known that the policy of a checkpoint has diverged, or None if it is not known to have."""
    try:
        reason = _read_content(folder).get("diverged")
    except _MarkerError:
        return None
    return None if reason is None else f"its policy has diverged ({reason})"


def unusable_reason(folder: Path) -> str | None:
    """Why a checkpoint is incomplete, or of a policy that has diverged; None if it is neither."""
    return incomplete_reason(folder) or divergence_reason(folder)


def incomplete_reason(folder: Path) -> str | None:
    """Why a checkpoint is not complete, or None if it is; file sizes are compared, contents are not read."""
    if not folder.is_dir():
        return "it is not a folder"
    try:
        sizes, _ = _read_marker(folder)
    except _MarkerError as error:
        return str(error)
    if not sizes and any(path.name != MARKER for path in folder.iterdir()):
        return f"its {MARKER} lists no files"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"its file {name} is missing"
        if path.stat().st_size != size:
            return f"its file {name} has {path.stat().st_size} bytes instead of {size}"
    return None


def damage_reason(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None if it can; every file is read once.

    Checkpoints of versions that recorded no checksums are judged by the sizes alone.
    """
    reason = incomplete_reason(folder)
    if reason is not None:
        return reason
    try:
        _, expected = _read_marker(folder)
        actual = _checksums(folder, expected)
    except _MarkerError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error}"
    damaged = [name for name, checksum in expected.items() if actual[name] != checksum]
    return f"the content of its file {damaged[0]} is not what was written (SHA-256 differs)" if damaged else None


def _read_content(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _MarkerError(f"it has no {MARKER}: it is half-written, or another trainer wrote it") from None
    except json.JSONDecodeError:
        raise _MarkerError(f"its {MARKER} is truncated") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise _MarkerError(f"its {MARKER} cannot be read ({type(error).__name__})") from None
    return content if isinstance(content, dict) else {}


def _read_marker(folder: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes and checksums by file; a marker of an early version has no checksums."""
    content = _read_content(folder)
    sizes, checksums = content.get("files"), content.get("sha256", {})
    is_valid = isinstance(sizes, dict) and all(type(size) is int for size in sizes.values())
    has_checksums = isinstance(checksums, dict) and set(checksums) in (set(), set(sizes or ()))
    if not isinstance(sizes, dict) or not isinstance(checksums, dict) or not (is_valid and has_checksums):
        raise _MarkerError(f"its {MARKER} does not list files with their sizes and checksums")
    return sizes, checksums


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    def checksum(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    names = list(names)
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(checksum, names)))
