"""Saves batches of answers on disk; after a kill, complete batches are kept and the others are generated again."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpt_trl.common.files import write_atomically
from hpt_trl.common.masking import masked
from hpt_trl.evaluation.scores import Answer


class Journal:
    """The answers to one suite in `NAME.jsonl`, and the settings they were generated with in `NAME.settings.json`.

    Args:
        folder: folder of the two files; created if it does not exist.
        name: name of the suite.
        settings: everything that the answers depend on.
        batches: (problem, sample) of the answers in each batch, in the order of generation.

    Raises:
        ValueError: if the folder contains answers generated with other settings.
    """

    def __init__(
        self, folder: Path, name: str, settings: Mapping[str, Any], batches: Sequence[Sequence[tuple[int, int]]]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        settings = masked(settings)
        self.finished: list[list[Answer]] = []
        settings_path = folder / f"{name}.settings.json"
        if settings_path.exists():
            _check_settings(settings_path, settings)
            self.finished = _read_complete_batches(self.path, batches)
        else:
            # Without the settings, it is unknown how the answers were generated.
            self.path.unlink(missing_ok=True)
            write_atomically(settings_path, json.dumps(settings, indent=1))

    def append(self, answers: Sequence[Answer]) -> None:
        """Append one batch and flush it to disk."""
        lines = "".join(json.dumps(asdict(answer)) + "\n" for answer in answers)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.finished.append(list(answers))


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    saved = json.loads(path.read_text(encoding="utf-8"))
    current = json.loads(json.dumps(settings))
    changes = [
        f"{key} was {saved.get(key)!r} and is {current.get(key)!r}"
        for key in sorted(saved.keys() | current.keys())
        if saved.get(key) != current.get(key)
    ]
    if changes:
        raise ValueError(
            f"{str(path.parent)!r} contains answers to {path.name.removesuffix('.settings.json')!r} that were "
            f"generated with other settings: {'; '.join(changes)}. Pass another output folder, or delete this one."
        )


def _read_complete_batches(path: Path, batches: Sequence[Sequence[tuple[int, int]]]) -> list[list[Answer]]:
    """Read the complete batches, and truncate the file after them."""
    if not path.exists():
        return []
    with path.open("rb+") as file:
        finished: list[list[Answer]] = []
        end = 0
        for batch in batches:
            lines = [_read_answer(file.readline(), problem, sample) for problem, sample in batch]
            answers = [answer for answer in lines if answer is not None]
            if len(answers) < len(batch):
                break
            finished.append(answers)
            end = file.tell()
        file.truncate(end)
    return finished


def _read_answer(line: bytes, problem: int, sample: int) -> Answer | None:
    """The answer in a line; None if the line is incomplete or belongs to another problem or sample."""
    if not line.endswith(b"\n"):
        return None
    try:
        answer = Answer(**json.loads(line))
    except (ValueError, TypeError):
        # After a power failure, a file may end in zeros instead of the written data.
        return None
    return answer if (answer.problem, answer.sample) == (problem, sample) else None
