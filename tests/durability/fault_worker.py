"""Runs that must fail well, each in its own processes; `test_faults.py` launches them and reads their messages.

python -m tests.durability.fault_worker MODEL FOLDER
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hpt_trl.common.command_line import run_errors
from tests.forks import exit_codes, fork_ranks
from tests.tiny import make_trainer, parity_reward

torch.set_num_threads(1)
SAVING = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2, "max_steps": 200}


class AtStep(TrainerCallback):
    """Does something at the end of one step."""

    def __init__(self, step: int, act: Callable[[], Any]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.act()


def is_rank(rank: int) -> bool:
    """Whether this is the process of that number."""
    return int(os.environ.get("LOCAL_RANK", "0")) == rank


def train(model: str, folder: Path, act: Callable[[], Any] = lambda: None, **options: Any) -> None:
    """A run that does something at the end of step 2."""
    with run_errors("train"):
        trainer = make_trainer(model, folder, trainer={"callbacks": [AtStep(2, act)]}, **(SAVING | options))
        trainer.train()


def fails_on_rank_1(completion_ids: list, **kwargs: Any) -> list[float]:
    """A reward function that one process cannot compute."""
    if is_rank(1):
        raise KeyError("solution")
    return parity_reward(completion_ids)


def hangs_on_rank_1(completion_ids: list, **kwargs: Any) -> list[float]:
    """A reward function that never returns on one process."""
    if is_rank(1):
        time.sleep(3600)
    return parity_reward(completion_ids)


def slow_enough(completion_ids: list, **kwargs: Any) -> list[float]:
    """A reward function that keeps its process busy while another dies."""
    time.sleep(0.2)
    return parity_reward(completion_ids)


def signal_one(number: int) -> None:
    """Send a signal to this process if it is rank 1."""
    if is_rank(1):
        os.kill(os.getpid(), number)


def fill_the_disk() -> None:
    """No file may grow beyond 16 KiB from now on: the system refuses the model's bytes, as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))


def spoil_the_card() -> None:
    """Put a folder in the place of the model card, which the first process writes on its way to a collective."""
    for card in Path(sys.argv[2]).glob("no_card/README.md"):
        if is_rank(0):
            card.unlink()
            card.mkdir()


SCENARIOS: dict[str, tuple[int, dict[str, Any]]] = {
    "reward_raises": (2, {"reward": fails_on_rank_1}),
    "reward_hangs": (2, {"reward": hangs_on_rank_1, "reward_timeout": 2.0}),
    "killed": (2, {"reward": slow_enough, "act": partial(signal_one, signal.SIGKILL)}),
    "terminated": (2, {"act": partial(signal_one, signal.SIGTERM)}),
    "interrupted": (2, {"act": partial(signal_one, signal.SIGINT)}),
    "disk_full": (1, {"act": fill_the_disk, "save_total_limit": 1}),
    "no_card": (2, {"act": spoil_the_card, "max_steps": 3}),
    "disk_full_on_two": (2, {"act": fill_the_disk, "save_total_limit": 1}),
}


def main(model: str, folder: Path) -> None:
    """Run all scenarios; write exit codes to `results.json`."""
    results = {}
    for name, (processes, options) in SCENARIOS.items():
        pids = fork_ranks(partial(train, model, folder / name, **options), folder / name, processes)
        results[name] = {"codes": exit_codes(pids)}
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
