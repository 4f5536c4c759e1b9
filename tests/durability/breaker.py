"""Break runs in seeded random ways, and print how many survived each kind.

    python -m tests.durability.breaker --trials 300 --seed 0

Kinds: damage to a file, a marker or a folder of checkpoints, and to models; kills and signals; divergence; types of
prompts and demonstrations; rewards that fail or hang; gates; records; values of options; secrets. A trial survives if
the run ends as the unbroken one did, bitwise, or is refused in one paragraph where that is expected. Damage, signals
and divergence are tried on one and on two processes. Each run has a limit: nothing may hang. The exit code is 0 if all
survived. A trial is determined by the seed and its number: `--only 17` repeats it.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset

from hpt_trl.durability.markers import MARKER, divergence_reason
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES
from hpt_trl.report.page import render
from hpt_trl.report.run_folder import read_run
from tests.durability import breaker_trials, damage
from tests.durability.breaker_runs import LIMIT, PROCESSES, BrokenError, Runs, train
from tests.durability.kill_and_resume import differences, final_state
from tests.forks import await_path, exit_codes, fork_ranks
from tests.tiny import ROWS, parity_reward

CHEAP = 10  # trials of a kind that trains nothing, for each of the others


class Breaker(Runs):
    """Makes the trials, each in a folder of its own.

    Args:
        root: folder for all of them.
        seed: decides, with the number of a trial, everything that is random in it.
    """

    def __init__(self, root: Path, seed: int) -> None:
        super().__init__(root)
        self.seed = seed
        self.draw = random.Random(seed)
        training: dict[str, Callable[[], None]] = {
            "damaged file": partial(self.damage, self._damage_file),
            "damaged marker": partial(self.damage, self._damage_marker),
            "no checkpoint folder": partial(self.damage, self._damage_folder),
            "damaged model": self.damaged_model,
            "former processes": self.former_processes,
            "kill": self.kill,
            "signal": self.signal,
            "divergence": self.divergence,
            "demonstration": self.demonstration,
            "odd row": self.odd_row,
            "reward": self.reward,
            "reward in a process": self.reward_in_a_process,
            "gate": self.gate,
            "record": self.record,
            "secret in a run": self.secret_in_a_run,
        }
        cheap = {
            "value of an option": partial(self.without_training, breaker_trials.refused_option),
            "secret": partial(self.without_training, breaker_trials.secret),
        }
        self.kinds = training | cheap
        self.order = [*training, *(name for name in cheap for _ in range(CHEAP))]

    def trial(self, number: int) -> tuple[str, str | None]:
        """Make one trial; returns its kind, and what failed, or None."""
        kind = self.order[number % len(self.order)]
        self.draw = random.Random(f"{self.seed} {number}")
        try:
            self.kinds[kind]()
        except BrokenError as error:
            return kind, str(error)
        # One that fails otherwise is a failed trial too, and must not end the others.
        except Exception as error:
            return kind, f"{type(error).__name__}: {error}"
        return kind, None

    def damage(self, how: Callable[[Path], str]) -> None:
        """Damage the newest one or two checkpoints; the next older one must be resumed from, exactly."""
        processes, count = self.draw.choice(PROCESSES), self.draw.choice((1, 1, 2))
        folder = self._folder() / "run"
        shutil.copytree(self.unbroken[processes], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
        how_damaged = [how(folder / f"checkpoint-{step}") for step in range(3, 3 - count, -1)]
        self._end_well(folder, processes, resume="auto")
        said = self._said(folder)
        unnamed = [step for step in range(3, 3 - count, -1) if not re.search(rf"checkpoint-9?{step}': ", said)]
        if unnamed:
            raise BrokenError(f"checkpoints {unnamed} were not named after {how_damaged}")
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
        shutil.copytree(self.unbroken[2], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
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

    def signal(self) -> None:
        """Send Ctrl-C or SIGTERM to one process of a run at a random moment, and let it go on."""
        processes, number = self.draw.choice(PROCESSES), self.draw.choice((signal.SIGINT, signal.SIGTERM))
        folder = self._folder() / "run"
        pids = fork_ranks(partial(train, self.model, folder, "auto"), folder, processes)
        await_path(folder / "begun", limit=LIMIT)
        # The handlers are installed when training has begun, and the folder is locked.
        await_path(folder / "_record" / "lock", limit=LIMIT)
        time.sleep(0.2 + 0.8 * self.draw.random())
        os.kill(self.draw.choice(pids), number)
        codes = exit_codes(pids, LIMIT)
        # 0: it had ended before, or was in its last step.
        if len(set(codes)) > 1 or codes[0] not in (0, 128 + number):
            raise BrokenError(f"exit codes {codes} after {number.name}: {self._said(folder)[-300:]}")
        self._end_well(folder, processes, resume="auto")
        self._compare(folder, processes)

    def divergence(self) -> None:
        """A learning rate that is far too high: the advice that the run ends with must work."""
        processes, folder = self.draw.choice(PROCESSES), self._folder() / "run"
        options = {
            "optim": self.draw.choice(("sgd", "adamw_torch")),
            "learning_rate": self.draw.choice((1e12, 1e20, 1e30)),
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": self.draw.randrange(3),
            "max_grad_norm": 0.0,
            "save_total_limit": self.draw.choice((None, 1, 2)),
            "max_skipped_steps_in_row": 1,
        }
        said = self._end_in_one_paragraph(folder, "The ", processes, **options)
        usable = [path for path in folder.glob("checkpoint-*") if divergence_reason(path) is None]
        advised = breaker_trials.advised_options(said)
        if bool(usable) != ("resume" in advised):
            raise BrokenError(f"{usable} are usable, and the advice is {advised}")
        self._end_well(folder, processes, **options | advised)

    def damaged_model(self) -> None:
        """Damage a file of the model that a run starts from."""
        folder = self._folder()
        model = Path(shutil.copytree(self.model, folder / "model"))
        path = self.draw.choice(sorted(model.iterdir()))
        how = self.draw.choice([each for each in damage.OF_FILES if each is not damage.swapped])
        how(path, self.draw)
        with self._starting_from(str(model)):
            self._end_well_or_in_one_paragraph(folder / "run", f"{how.__name__} of {path.name}", max_steps=1)

    def odd_row(self) -> None:
        """Rows of a stream with a prompt, demonstration or solution of any type."""
        rows = breaker_trials.odd_rows(self.draw)
        stream = IterableDataset.from_generator(lambda: iter(rows))
        options = {"save_strategy": "no", "shuffle_dataset": False, "max_steps": 4}
        self._end_well_or_in_one_paragraph(self._folder() / "run", f"{rows}"[:200], rows=stream, **options)

    def reward_in_a_process(self) -> None:
        """A reward function that never returns, or ends its process, under a limit of time."""
        function = breaker_trials.impossible_reward(self.draw)
        words = f"The reward function '{function.__name__}'"
        processes = self.draw.choice(PROCESSES)
        self._end_in_one_paragraph(self._folder() / "run", words, processes, reward=function, reward_timeout=1.0)

    def secret_in_a_run(self) -> None:
        """A secret in the environment that a reward function logs or raises, and a token of the Hub."""
        folder, letters = self._folder() / "run", self.draw.randbytes(12).hex()
        hidden = self.draw.choice((f"hf_{letters}", f"api_org_{letters}", f"local-{letters}"))
        raises = self.draw.choice((True, False))
        os.environ["SERVICE_TOKEN"] = hidden
        try:
            reward = breaker_trials.leaking_reward(hidden, raises)
            options = {"reward": reward, "hub_token": hidden, "log_completions": False, "max_steps": 2}
            codes = self._run(folder, **options)
        finally:
            del os.environ["SERVICE_TOKEN"]
        found = breaker_trials.files_with(folder, hidden)
        if codes != [int(raises)] or found:
            raise BrokenError(f"exit codes {codes}, and {found} hold {hidden!r}: {self._said(folder)[-300:]}")

    def without_training(self, attempt: Callable[[random.Random, Path], str | None]) -> None:
        """A trial in this process."""
        fault = attempt(self.draw, self.root / "config")
        if fault is not None:
            raise BrokenError(fault)

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
        shutil.copytree(self.unbroken[1], folder, ignore=shutil.ignore_patterns("checkpoint-4", "final.pth"))
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


def work(breaker: Breaker, numbers: range, deadline: float, results: Path) -> None:
    """Make trials until a time, and write a line for each."""
    for number in numbers:
        if time.monotonic() > deadline:
            return
        begin = time.monotonic()
        kind, failure = breaker.trial(number)
        for path in breaker.root.glob(f"trial_{os.getpid()}_*"):
            shutil.rmtree(path, ignore_errors=True)
        result = {"number": number, "kind": kind, "failure": failure, "seconds": time.monotonic() - begin}
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")


def print_table(breaker: Breaker, results: list[dict[str, Any]], seconds: float) -> int:
    """Print what survived by kind; returns how many failed."""
    failed = [result for result in results if result["failure"] is not None]
    for result in failed:
        print(f"{result['number']} {result['kind']}: {result['failure']}")
    print(f"{'kind':24}{'survived':>10}{'failed':>8}{'seconds':>9}")
    for kind in breaker.kinds:
        of_kind = [result for result in results if result["kind"] == kind]
        bad = sum(result["failure"] is not None for result in of_kind)
        print(f"{kind:24}{len(of_kind) - bad:10d}{bad:8d}{sum(result['seconds'] for result in of_kind):9.0f}")
    print(f"{len(results) - len(failed)} trials survived, {len(failed)} failed, in {seconds:.0f} s.")
    return len(failed)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="at most, over all kinds in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10, help="no trial begins after this time")
    parser.add_argument("--workers", type=int, default=2, help="processes that make trials side by side")
    parser.add_argument("--only", type=int, help="number of the one trial to make")
    arguments = parser.parse_args()
    begin, root = time.monotonic(), Path(tempfile.mkdtemp(prefix="breaker_"))
    breaker, deadline = Breaker(root, arguments.seed), begin + 60 * arguments.minutes
    numbers = range(arguments.trials) if arguments.only is None else range(arguments.only, arguments.only + 1)
    pids = [
        fork_ranks(
            partial(work, breaker, numbers[worker :: arguments.workers], deadline, root / f"results_{worker}.jsonl"),
            root / f"worker_{worker}",
        )[0]
        for worker in range(arguments.workers)
    ]
    codes = exit_codes(pids, 60 * arguments.minutes + 5 * LIMIT)
    lines = [line for path in root.glob("results_*.jsonl") for line in path.read_text().splitlines()]
    results = sorted(map(json.loads, lines), key=lambda result: result["number"])
    failed = print_table(breaker, results, time.monotonic() - begin)
    if any(codes):
        raise SystemExit(f"The processes that made the trials ended with {codes}: see {root}.")
    if not failed:
        shutil.rmtree(root)
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
