"""Break runs in seeded random ways, and print how many survived each kind.

    python -m tests.durability.breaker --trials 300 --seed 0

Kinds: damage to a file, a marker or a folder of checkpoints, on one and on two processes; kills; types of
demonstrations; rewards; gates; records. A trial survives if the run ends as the unbroken one did, bitwise, or is
refused in one paragraph where that is expected. Each trial has a limit: nothing may hang. The exit code is 0 if all
survived.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset

from hpt_trl.common.command_line import run_errors
from hpt_trl.durability.markers import MARKER
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES
from hpt_trl.report.page import render
from hpt_trl.report.run_folder import read_run
from tests.durability import damage
from tests.durability.kill_and_resume import OPTIONS, differences, final_state
from tests.forks import await_path, exit_codes, fork_ranks
from tests.tiny import ROWS, build_tiny_model, make_trainer, parameters, parity_reward

torch.set_num_threads(1)
LIMIT = 120.0  # seconds of one run
SETUP = OPTIONS | {"max_steps": 4, "save_total_limit": None}
PROCESSES = (1, 2)


def train(model: str, folder: Path, resume: str | bool | None = None, **options: Any) -> None:
    """One run; what it ended with is saved as kill_and_resume does."""
    with run_errors("train"):
        trainer = make_trainer(model, folder, **(SETUP | options))
        (folder / "begun").touch()
        trainer.train(resume)
    if trainer.accelerator.is_main_process:
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        torch.save(state, folder / "final.pth")
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


class BrokenError(Exception):
    """A trial that did not survive, and why."""


class Breaker:
    """Makes the trials, each in a folder of its own.

    Args:
        root: folder for all of them.
        draw: decides everything that is random.
    """

    def __init__(self, root: Path, draw: random.Random) -> None:
        self.root = root
        self.draw = draw
        self.model = build_tiny_model(root / "model")
        self.kinds: dict[str, Callable[[], None]] = {
            "damaged file": partial(self.damage, self._damage_file),
            "damaged marker": partial(self.damage, self._damage_marker),
            "no checkpoint folder": partial(self.damage, self._damage_folder),
            "former processes": self.former_processes,
            "kill": self.kill,
            "demonstration": self.demonstration,
            "reward": self.reward,
            "gate": self.gate,
            "record": self.record,
        }
        self.whole = {}
        for processes in PROCESSES:
            self.whole[processes] = root / f"whole_{processes}"
            self._end_well(self.whole[processes], processes=processes)

    def trial(self, kind: str) -> str | None:
        """Make one trial; returns what failed, or None."""
        try:
            self.kinds[kind]()
        except BrokenError as error:
            return str(error)
        return None

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="trial_", dir=self.root))

    def _run(self, folder: Path, processes: int = 1, **options: Any) -> list[int]:
        for log in folder.glob("log_*.txt"):
            log.unlink()
        return exit_codes(fork_ranks(partial(train, self.model, folder, **options), folder, processes), LIMIT)

    def _end_well(self, folder: Path, processes: int = 1, **options: Any) -> None:
        codes = self._run(folder, processes, **options)
        if any(codes):
            raise BrokenError(f"exit codes {codes}: {self._said(folder)[-300:]}")

    def _end_in_one_paragraph(self, folder: Path, words: str, **options: Any) -> None:
        codes = self._run(folder, **options)
        said = self._said(folder)
        if codes != [1] or "Traceback" in said or f"train: error: {words}" not in said:
            raise BrokenError(f"exit codes {codes} instead of a paragraph with {words!r}: {said[-300:]}")

    def _said(self, folder: Path) -> str:
        return (folder / "log_0.txt").read_text(errors="replace")

    def _compare(self, folder: Path, processes: int) -> None:
        found = differences(final_state(folder), final_state(self.whole[processes]))
        if found:
            raise BrokenError(f"the run ended with other {found}")

    def damage(self, how: Callable[[Path], str]) -> None:
        """Damage the newest one or two checkpoints; the next older one must be resumed from, exactly."""
        processes, count = self.draw.choice(PROCESSES), self.draw.choice((1, 1, 2))
        folder = self._folder() / "run"
        shutil.copytree(self.whole[processes], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
        told = [how(folder / f"checkpoint-{step}") for step in range(3, 3 - count, -1)]
        self._end_well(folder, processes, resume="auto")
        said = self._said(folder)
        unnamed = [step for step in range(3, 3 - count, -1) if not re.search(rf"checkpoint-9?{step}': ", said)]
        if unnamed:
            raise BrokenError(f"checkpoints {unnamed} were not named after {told}")
        self._compare(folder, processes)

    def _damage_file(self, checkpoint: Path) -> str:
        names = sorted(path.name for path in checkpoint.iterdir() if path.name != MARKER)
        name, how = self.draw.choice(names), self.draw.choice(damage.OF_FILES)
        how(checkpoint / name, self.draw)
        return f"{how.__name__} of {name}"

    def _damage_marker(self, checkpoint: Path) -> str:
        name = self.draw.choice([*damage.MARKERS, "folder", "loop"])
        others = {"folder": damage.folder_instead, "loop": damage.loop_instead}
        if name in others:
            others[name](checkpoint / MARKER, self.draw)
        else:
            damage.bad_marker(name)(checkpoint, self.draw)
        return name

    def _damage_folder(self, checkpoint: Path) -> str:
        how = self.draw.choice((damage.checkpoint_is_file, damage.checkpoint_is_loop))
        how(checkpoint, self.draw)
        # A run cannot write where a file is in the way: the step of this one is never reached.
        moved = checkpoint.with_name(checkpoint.name.replace("checkpoint-", "checkpoint-9"))
        checkpoint.rename(moved)
        if moved.is_symlink():
            moved.unlink()
            moved.symlink_to(moved)
        return how.__name__

    def former_processes(self) -> None:
        """Two processes, then one, then two again write the same checkpoints; nothing is adopted from the first."""
        folder = self._folder() / "run"
        shutil.copytree(self.whole[2], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
        self._end_well(folder, 1, resume=str(folder / f"checkpoint-{self.draw.choice((1, 2))}"))
        stale = list(folder.glob("checkpoint-[34]/hpt_state_1.pth"))
        if stale:
            raise BrokenError(f"{stale} were left")
        self._end_well(folder, 2, resume=str(folder / "checkpoint-3"))

    def kill(self) -> None:
        """Kill a run at a random moment and let it go on."""
        processes = self.draw.choice(PROCESSES)
        folder = self._folder() / "run"
        pids = fork_ranks(partial(train, self.model, folder, "auto"), folder, processes)
        await_path(folder / "begun", limit=LIMIT)
        time.sleep(self.draw.random())
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        exit_codes(pids, LIMIT)
        self._end_well(folder, processes, resume="auto")
        self._compare(folder, processes)

    def demonstration(self) -> None:
        """A stream with one row whose demonstration has another type."""
        values: list[Any] = [
            None,
            0,
            5,
            1.5,
            True,
            b"x",
            b"",
            [],
            [None],
            ["a"],
            [[]],
            {},
            {"content": 5},
            "\ud800",
            [5],
        ]
        rows = [dict(row) for row in ROWS]
        rows[self.draw.randrange(len(rows))]["demonstration"] = self.draw.choice(values)
        stream = IterableDataset.from_generator(lambda: iter(rows))
        self._end_well(
            self._folder() / "run", rows=stream, gate_threshold=1.0, save_strategy="no", shuffle_dataset=False
        )

    def reward(self) -> None:
        """A reward function that returns or raises something wrong after some calls."""
        bad: list[Callable[[int], Any]] = [
            lambda count: None, lambda count: [1.0] * (count - 1), lambda count: [float("nan")] * count,
            lambda count: [1e300] * count, lambda count: "x" * count, lambda count: [[1.0]] * count,
            lambda count: 1 / 0, lambda count: ["high"] * count, lambda count: dict.fromkeys(range(count), 1.0),
        ]  # fmt: skip
        chosen, calls = self.draw.choice(bad), [0] * self.draw.choice((0, 1))

        def mine(completion_ids: list, **kwargs: Any) -> Any:
            return parity_reward(completion_ids) if calls and calls.pop() == 0 else chosen(len(completion_ids))

        self._end_in_one_paragraph(self._folder() / "run", "The reward function 'mine'", reward=mine)

    def gate(self) -> None:
        """A gate that writes into its argument changes nothing else."""
        value, folder = self.draw.random(), self._folder() / "run"

        def writing(solve_rate_P: torch.Tensor, step: int) -> Any:
            rollouts_P = (solve_rate_P > 0.25).float()
            solve_rate_P.fill_(value)
            return rollouts_P, 1 - rollouts_P

        def reading(solve_rate_P: torch.Tensor, step: int) -> Any:
            rollouts_P = (solve_rate_P > 0.25).float()
            return rollouts_P, 1 - rollouts_P

        options = {"gate_threshold": 0.0, "save_strategy": "no"}
        for name, gate in {"writing": writing, "reading": reading}.items():
            self._end_well(folder / name, trainer={"gate": gate}, **options)
        found = differences(final_state(folder / "writing"), final_state(folder / "reading"))
        if found:
            raise BrokenError(f"other {found}")

    def record(self) -> None:
        """A file of the record is foreign: the run resumes, and the report is made or refused in one paragraph."""
        folder = self._folder() / "run"
        shutil.copytree(self.whole[1], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
        name = self.draw.choice((SAMPLES, "_record/log.jsonl", "_record/run.json", "gate.parquet"))
        contents = [
            b"[]",
            b"{}\n",
            b"5\n",
            b"null",
            b"\xff\xfe",
            b"",
            b'{"step": "x", "loss": []}\n',
            self.draw.randbytes(99),
        ]
        (folder / name).write_bytes(self.draw.choice(contents))
        try:
            render([read_run(folder)])
        except (ValueError, FileNotFoundError) as error:
            if "\n" in str(error):
                raise BrokenError(f"the report: {error}") from error
        except Exception as error:
            raise BrokenError(f"the report: {type(error).__name__}: {error}") from error
        self._end_well(folder, resume="auto")
        self._compare(folder, 1)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="at most, over all kinds in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10, help="no trial begins after this time")
    arguments = parser.parse_args()
    begin, root = time.monotonic(), Path(tempfile.mkdtemp(prefix="breaker_"))
    breaker = Breaker(root, random.Random(arguments.seed))
    survived: Counter[str] = Counter()
    failures: dict[str, list[str]] = {kind: [] for kind in breaker.kinds}
    for number in range(arguments.trials):
        if time.monotonic() - begin > 60 * arguments.minutes:
            break
        kind = list(breaker.kinds)[number % len(breaker.kinds)]
        failure = breaker.trial(kind)
        if failure is None:
            survived[kind] += 1
        else:
            failures[kind].append(failure)
            print(f"{number} {kind}: {failure}", flush=True)
    for path in root.glob("trial_*"):
        shutil.rmtree(path)
    print(f"{'kind':24}{'survived':>10}{'failed':>8}")
    for kind in breaker.kinds:
        print(f"{kind:24}{survived[kind]:10d}{len(failures[kind]):8d}")
    failed = sum(map(len, failures.values()))
    print(f"{survived.total()} trials survived, {failed} failed, in {time.monotonic() - begin:.0f} s.")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
