"""Batches of answers on disk: killed at any moment, what was whole is kept and the rest is made again."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpt_trl.common.files import write_atomically
from hpt_trl.evaluation.scores import Answer


class Journal:
    """The answers to one suite in `NAME.jsonl`, and the settings they were made with in `NAME.settings.json`.

    Args:
        folder: where the two files are; made if need be.
        name: of the suite.
        settings: all that the answers depend on.
        batches: (problem, sample) of the answers of each batch, in the order they are made.

    Raises:
        ValueError: if the folder holds answers made with other settings.
    """

    def __init__(
        self, folder: Path, name: str, settings: Mapping[str, Any], batches: Sequence[Sequence[tuple[int, int]]]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        self.finished: list[list[Answer]] = []
        settings_path = folder / f"{name}.settings.json"
        if settings_path.exists():
            _check_settings(settings_path, settings)
            self.finished = _read_whole_batches(self.path, batches)
        else:
            # Answers without settings are of nobody knows what.
            self.path.unlink(missing_ok=True)
            write_atomically(settings_path, json.dumps(settings, indent=1))

    def append(self, answers: Sequence[Answer]) -> None:
        """Add one batch, and return when it is on disk."""
        lines = "".join(json.dumps(asdict(answer)) + "\n" for answer in answers)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.finished.append(list(answers))


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    then = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    changed = [
        f"{key} was {then.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]
    if changed:
        raise ValueError(
            f"{str(path.parent)!r} holds answers to {path.name.removesuffix('.settings.json')!r} made with other "
            f"settings: {'; '.join(changed)}. Give another output folder, or delete this one."
        )


def _read_whole_batches(path: Path, batches: Sequence[Sequence[tuple[int, int]]]) -> list[list[Answer]]:
    """Batches that are there to the last line; what follows them is cut off the file."""
    if not path.exists():
        return []
    with path.open("rb+") as file:
        finished: list[list[Answer]] = []
        end = 0
        for batch in batches:
            answers = [_read_answer(file.readline(), wanted) for wanted in batch]
            whole = [answer for answer in answers if answer is not None]
            if len(whole) < len(batch):
                break
            finished.append(whole)
            end = file.tell()
        file.truncate(end)
    return finished


def _read_answer(line: bytes, wanted: tuple[int, int]) -> Answer | None:
    if not line.endswith(b"\n"):
        return None
    try:
        answer = Answer(**json.loads(line))
    except (ValueError, TypeError):
        # After a power cut a file may end in zeros instead of what was written.
        return None
    return answer if (answer.problem, answer.sample) == wanted else None
