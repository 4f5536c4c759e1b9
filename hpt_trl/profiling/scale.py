"""Time and memory of starting, training and saving by the number of data rows: HPTTrainer beside GRPOTrainer.

    python -m hpt_trl.profiling.scale --json scale.json

Each measurement is a process of its own, with the bundled model. Seconds are CPU time, which other work on the machine
hardly changes. The last part is the gate history of a long run, which log lines write again and again.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.config import HPTConfig
from hpt_trl.data.sources import MINIATURE, resolve_model
from hpt_trl.durability.gate_history import GateHistory
from hpt_trl.trainer.hpt import HPTTrainer

KINDS: dict[str, tuple[type, type]] = {"GRPO": (GRPOTrainer, GRPOConfig), "HPT": (HPTTrainer, HPTConfig)}
_OPTIONS: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "max_steps": 4, "per_device_train_batch_size": 8, "num_generations": 8,
    "max_completion_length": 16, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
    "gradient_checkpointing": False,
}  # fmt: skip
_PROMPTS = 128  # per step, of a long run's history


class StepTimes(TrainerCallback):
    """CPU seconds of every step, its log line included."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begin = time.process_time()
        self.first = self.first or self.begin

    def on_log(self, args, state, control, **kwargs):
        if len(self.seconds) < state.global_step:
            self.seconds.append(time.process_time() - self.begin)


def data_of(rows: int) -> Dataset:
    """Sums with their demonstrations."""
    sums = [(number, number % 7) for number in range(rows)]
    columns = {
        "prompt": [f"{a} + {b} =" for a, b in sums],
        "demonstration": [f"{a} + {b} = {a + b}" for a, b in sums],
        "solution": [str(a + b) for a, b in sums],
    }
    return Dataset.from_dict(columns)


def half_right(completions: Sequence[Any], **kwargs: Any) -> list[float]:
    """Rewards that give every group a signal."""
    return [float(row % 2) for row in range(len(completions))]


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(kind: str, rows: int) -> dict[str, Any]:
    """Start, train and save with one trainer in this process."""
    trainer_class, config_class = KINDS[kind]
    data, times = data_of(rows), StepTimes()
    model = resolve_model(MINIATURE)
    with tempfile.TemporaryDirectory() as folder:
        before, begin = resident_bytes(), time.process_time()
        trainer = trainer_class(model, half_right, config_class(folder, **_OPTIONS), data)
        constructed = time.process_time() - begin
        trainer.add_callback(times)
        trainer.train()
        started = (times.first or begin) - begin
        # The first checkpoint of a process includes imports.
        trainer._save_checkpoint(trainer.model, None)
        begin = time.process_time()
        trainer._save_checkpoint(trainer.model, None)
        saved = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "trainer": kind, "rows": rows, "constructor": round(constructed, 3), "to_first_step": round(started, 3),
        "step": round(min(times.seconds[1:]), 3), "checkpoint": round(saved, 3),
        "peak_mb": round((peak - before) / 1e6),
    }  # fmt: skip


def history_seconds(rows: int) -> dict[str, Any]:
    """CPU seconds for all log lines of a run, of which each may write the gate history."""
    ids, ones = [f"{prompt:016x}" for prompt in range(_PROMPTS)], torch.ones(_PROMPTS)
    history, weights, lines = GateHistory(), GateWeights(ones, 0 * ones, 0 * ones), rows // _PROMPTS
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        for step in range(lines):
            history.add(step, ids, [0.5] * _PROMPTS, weights)
            if history.is_due:
                history.write(folder)
        seconds = time.process_time() - begin
        begin = time.process_time()
        history.write(folder)
        once = time.process_time() - begin
    return {"history_rows": rows, "per_log_line": seconds / max(1, lines), "written_once": round(once, 3)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="data rows")
    parser.add_argument("--json", type=Path, help="file to which the results are also written")
    parser.add_argument("--one", choices=KINDS, help="measure one trainer in this process")
    args = parser.parse_args(argv)
    if args.one:
        torch.set_num_threads(1)
        print(json.dumps(measure(args.one, args.rows[0])))
        return
    results = []
    for rows in args.rows:
        for kind in KINDS:
            module = ["-m", "hpt_trl.profiling.scale"]
            command = [sys.executable, "-W", "ignore", *module, "--one", kind, "--rows", str(rows)]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(process.stdout.strip().splitlines()[-1]))
            print(results[-1], flush=True)
        results.append(history_seconds(rows))
        print(results[-1], flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
