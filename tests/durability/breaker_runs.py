"""The runs of the breaker: each in forks of this process, with a limit, and how it must end."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hpt_trl.common.command_line import run_errors, user_errors
from tests.durability.kill_and_resume import OPTIONS, differences, final_state
from tests.forks import exit_codes, fork_ranks
from tests.tiny import build_tiny_model, make_trainer, parameters

torch.set_num_threads(1)
LIMIT = 120.0  # seconds of one run
SETUP = OPTIONS | {"max_steps": 4, "save_total_limit": None}
PROCESSES = (1, 2)


class BrokenError(Exception):
    """A trial that did not survive, and why."""


def train(model: str, folder: Path, resume: str | bool | None = None, **options: Any) -> None:
    """One run; what it ended with is saved as kill_and_resume does."""
    with user_errors("train"):
        trainer = make_trainer(model, folder, **(SETUP | options))
    with run_errors("train"):
        (folder / "begun").touch()
        trainer.train(resume)
    if trainer.accelerator.is_main_process:
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        torch.save(state, folder / "final.pth")
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


class Runs:
    """Runs of a tiny model below one folder.

    Args:
        root: folder for all of them.

    `unbroken` holds the folder of a run that nothing broke, by its number of processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = build_tiny_model(root / "model")
        self.unbroken = {processes: root / f"unbroken_{processes}" for processes in PROCESSES}
        for processes, folder in self.unbroken.items():
            self._end_well(folder, processes)

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"trial_{os.getpid()}_", dir=self.root))

    def _run(self, folder: Path, processes: int = 1, **options: Any) -> list[int]:
        for log in folder.glob("log_*.txt"):
            log.unlink()
        return exit_codes(fork_ranks(partial(train, self.model, folder, **options), folder, processes), LIMIT)

    def _end_well(self, folder: Path, processes: int = 1, **options: Any) -> None:
        codes = self._run(folder, processes, **options)
        if any(codes):
            raise BrokenError(f"exit codes {codes}: {self._said(folder)[-300:]}")

    def _end_in_one_paragraph(self, folder: Path, words: str, processes: int = 1, **options: Any) -> str:
        """Make a run that is refused; returns what it said."""
        codes = self._run(folder, processes, **options)
        said = self._said(folder)
        if any(code not in (1, 2) for code in codes) or "Traceback" in said or f"train: error: {words}" not in said:
            raise BrokenError(f"exit codes {codes} instead of a paragraph with {words!r}: {said[-300:]}")
        return said

    def _end_well_or_in_one_paragraph(self, folder: Path, what: str, **options: Any) -> None:
        codes = self._run(folder, **options)
        if codes != [0] and (codes not in ([1], [2]) or "train: error: " not in self._said(folder)):
            raise BrokenError(f"{what}: exit codes {codes} without a paragraph: {self._said(folder)[-300:]}")

    def _said(self, folder: Path) -> str:
        return (folder / "log_0.txt").read_text(errors="replace")

    def _compare(self, folder: Path, processes: int) -> None:
        found = differences(final_state(folder), final_state(self.unbroken[processes]))
        if found:
            raise BrokenError(f"the run ended with other {found}")

    @contextmanager
    def _starting_from(self, model: str) -> Iterator[None]:
        """Let runs start from another model."""
        before, self.model = self.model, model
        try:
            yield
        finally:
            self.model = before
