"""Ways to damage a checkpoint, by file and by byte; used by the tests and by the breaker."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from hpt_trl.durability.markers import MARKER

FILES = (
    "config.json", "gate.parquet", "hpt_state_0.pth", "model.safetensors", "optimizer.pt", "scheduler.pt",
    "trainer_state.json", "training_args.bin",
)  # fmt: skip
Damage = Callable[[Path, random.Random], None]


def zeros(path: Path, draw: random.Random) -> None:
    """Zero bytes of the same length, as some file systems leave after a power failure."""
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path, draw: random.Random) -> None:
    """Random bytes of the same length."""
    path.write_bytes(draw.randbytes(path.stat().st_size))


def flipped(path: Path, draw: random.Random) -> None:
    """64 bytes (or all, of a shorter file) flipped somewhere."""
    content = bytearray(path.read_bytes())
    start = draw.randrange(max(1, len(content) - 64))
    content[start : start + 64] = bytes(255 - byte for byte in content[start : start + 64])
    path.write_bytes(content)


def one_bit(path: Path, draw: random.Random) -> None:
    """One bit flipped."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncated(path: Path, draw: random.Random) -> None:
    """The end is missing."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def missing(path: Path, draw: random.Random) -> None:
    """The file is gone."""
    path.unlink()


def swapped(path: Path, draw: random.Random) -> None:
    """The file of the same name in another checkpoint, if they differ; else a longer one."""
    others = [other for other in sorted(path.parent.parent.glob(f"checkpoint-*/{path.name}")) if other != path]
    content = draw.choice(others).read_bytes() if others else b""
    path.write_bytes(content if content not in (path.read_bytes(), b"") else path.read_bytes() + b"\n")


def folder_instead(path: Path, draw: random.Random) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def loop_instead(path: Path, draw: random.Random) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path)


OF_FILES: tuple[Damage, ...] = (
    zeros, garbage, flipped, one_bit, truncated, missing, swapped, folder_instead, loop_instead
)  # fmt: skip

MARKERS = {
    "list": b"[]",
    "object": b"{}",
    "null_files": b'{"files": null}',
    "list_of_files": b'{"files": ["model.safetensors"]}',
    "text_sizes": b'{"files": {"model.safetensors": "12"}}',
    "no_file": b'{"files": {}, "sha256": {}}',
    "null_checksums": b'{"files": {"config.json": 1}, "sha256": null}',
    "some_checksums": b'{"files": {"config.json": 1}, "sha256": {}, "sha256": {"other": "00"}}',
    "number": b"5",
    "text": b'"complete"',
    "deep": b"[" * 100_000,
    "empty": b"",
    "zeros": bytes(300),
    "not_utf8": b"\xff\xfe{}",
}


def bad_marker(name: str) -> Damage:
    """A marker that no run wrote."""

    def damage(checkpoint: Path, draw: random.Random) -> None:
        (checkpoint / MARKER).write_bytes(MARKERS[name])

    return damage


def checkpoint_is_file(checkpoint: Path, draw: random.Random) -> None:
    """A file instead of the checkpoint."""
    shutil.rmtree(checkpoint)
    checkpoint.write_bytes(b"not a folder")


def checkpoint_is_loop(checkpoint: Path, draw: random.Random) -> None:
    """A link to itself instead of the checkpoint."""
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to(checkpoint)


def without_checksums(checkpoint: Path) -> None:
    """Rewrite the marker as early versions wrote it."""
    sizes = json.loads((checkpoint / MARKER).read_text())["files"]
    (checkpoint / MARKER).write_text(json.dumps({"files": sizes}))
