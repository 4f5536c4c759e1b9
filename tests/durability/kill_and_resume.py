"""Kill runs at random moments, resume each from its newest checkpoint, and compare with the run nobody killed.

    python -m tests.durability.kill_and_resume --kills 20

Every run steps through two epochs in ten optimizer steps with a checkpoint at each, a generation every second step and
a log line every second: so a kill falls between two generations, between two log lines, and into the saving. Runs are
forks of this process, which spares each the imports. The last line says how many ended as the uninterrupted run did;
the exit code is 0 if all did.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from packaging.version import Version
from peft import LoraConfig

from hpt_trl.durability.markers import incomplete_reason
from tests.forks import await_path, exit_codes, fork_ranks
from tests.tiny import build_tiny_model, make_trainer, parameters

OPTIONS = {
    "max_steps": 10,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
    "gate_threshold": 0.25,
    "shuffle_dataset": True,
    "lr_scheduler_type": "cosine",
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"beta": 0.1, "num_iterations": 2},
    "two_processes": {"processes": 2},
}
if Version(transformers.__version__) < Version("5.23"):
    # 5.17, which vLLM holds, cannot load an optimizer on several processes of a CPU (on GPUs it can).
    del VARIANTS["two_processes"]
torch.set_num_threads(1)
TOO_LATE = "the run had ended before it was killed"
TIMES = ("_runtime", "_per_second", "step_time", "time/generation", "time/verdicts")


def train(model: str, folder: Path, processes: int = 1, **options: Any) -> None:
    """Start a run or go on with it, and save what it ended with."""
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if "beta" in options else None
    trainer = make_trainer(model, folder, trainer={"peft_config": lora}, **(OPTIONS | options))
    assert trainer.accelerator.num_processes == processes
    (folder / "begun").touch()
    trainer.train("auto")
    if trainer.accelerator.is_main_process:
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        torch.save(state, folder / "final.pth")
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


def start(model: str, folder: Path, **options: Any) -> list[int]:
    """Process ids of one run, once it has its model and data."""
    (folder / "begun").unlink(missing_ok=True)
    pids = fork_ranks(partial(train, model, folder, **options), folder, options.get("processes", 1))
    await_path(folder / "begun")
    return pids


def seconds_of_training(model: str, folder: Path, **options: Any) -> float:
    """Make the run that nobody kills; returns how long it trains."""
    pids = start(model, folder, **options)
    begin = time.monotonic()
    if any(exit_codes(pids)):
        raise SystemExit(f"The uninterrupted run failed: see {folder}.")
    return time.monotonic() - begin


def log_without_times(history: list[dict[str, Any]]) -> str:
    """What a run logged; as a text, for NaN is unequal to itself, and sorted, as transformers saves it."""
    entries = [{name: value for name, value in entry.items() if not name.endswith(TIMES)} for entry in history]
    return json.dumps(entries, sort_keys=True)


def final_state(folder: Path) -> tuple[Any, ...]:
    """What a run ended with: parameters and optimizer, log without times, gate history."""
    tensors = torch.load(folder / "final.pth", weights_only=True)
    log = log_without_times(json.loads((folder / "log.json").read_text()))
    return tensors, log, pd.read_parquet(folder / "gate.parquet")


def differences(found: tuple[Any, ...], expected: tuple[Any, ...]) -> list[str]:
    """Which parts of two final states are not equal to the bit."""
    same_tensors = {
        "parameters": torch.equal(found[0]["parameters"], expected[0]["parameters"]),
        "optimizer": found[0]["optimizer"].keys() == expected[0]["optimizer"].keys()
        and all(
            torch.equal(torch.as_tensor(mine[name]), torch.as_tensor(theirs[name]))
            for mine, theirs in zip(found[0]["optimizer"].values(), expected[0]["optimizer"].values())
            for name in theirs
        ),
        "log": found[1] == expected[1],
        "gate.parquet": found[2].equals(expected[2]) and not found[2].duplicated(["step", "prompt_id"]).any(),
    }
    return [name for name, same in same_tensors.items() if not same]


def kill_and_resume(model: str, folder: Path, delay: float, expected: tuple[Any, ...], **options: Any) -> str:
    """Kill a run `delay` seconds after it has begun to train, let it go on, and tell how it ended."""
    pids = start(model, folder, **options)
    time.sleep(delay)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if -signal.SIGKILL not in exit_codes(pids):
        return TOO_LATE
    steps = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    halves = [path for path in folder.glob("checkpoint-*") if incomplete_reason(path)]
    if any(exit_codes(start(model, folder, **options))):
        return f"FAILED: the resumed run did not end well: {(folder / 'log_0.txt').read_text()[-2000:]}"
    found = differences(final_state(folder), expected)
    place = f"after {delay:.2f} s, checkpoints {steps}, {len(halves)} half-written"
    return f"DIFFERENT in {found}, killed {place}" if found else f"identical, killed {place}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many runs to kill, over all variants in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    root = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    model = build_tiny_model(root / "model")
    durations: dict[str, float] = {}
    identical = 0
    for kill in range(arguments.kills):
        name = arguments.variants[kill % len(arguments.variants)]
        whole = root / f"{name}_whole"
        if name not in durations:
            durations[name] = seconds_of_training(model, whole, **VARIANTS[name])
        told = TOO_LATE
        while told == TOO_LATE:
            delay, folder = draw.random() * durations[name], Path(tempfile.mkdtemp(prefix=f"{name}_{kill}_", dir=root))
            told = kill_and_resume(model, folder, delay, final_state(whole), **VARIANTS[name])
        identical += told.startswith("identical")
        print(f"{kill + 1:2d} {name}: {told}", flush=True)
    print(f"{identical} of {arguments.kills} killed runs ended as the uninterrupted one did.")
    raise SystemExit(identical < arguments.kills)


if __name__ == "__main__":
    main()
