"""Long runs of HPT in which every prompt comes back many times: how often would a forecast of its solve rate be right?

`python notebooks/results/forecast/long_runs.py OUTPUT_DIR` trains two base models of `hpt-trl compare` with two seeds
on 128 prompts with error-free demonstrations, twice as long as there, and writes `long_runs.json` beside this file: for
every prompt one digit per visit, the number of its eight rollouts that were right. It takes minutes on one core.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

from hpt_trl.comparison.runs import Run, execute
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.durability.gate_history import FILE_NAME
from hpt_trl.miniature.bases import BASES, base_folder, build_base

SETTINGS = CompareArguments(
    training_problems=128, compute=2.4e6, test_problems=24, test_samples=2, pass_problems=0, curve_points=2
)


def visits(history: Path) -> list[str]:
    """One text per prompt, one digit per visit."""
    gate = pd.read_parquet(history)
    right = (gate["solve_rate"] * SETTINGS.num_generations).round().astype(int).astype(str)
    return right.groupby(gate["prompt_id"]).agg("".join).tolist()


def main(output: Path) -> None:
    """Train, and write the visits of all prompts."""
    torch.set_num_threads(1)
    found = {}
    for model in ("qwen2-small", "qwen2-weak"):
        base = base_folder(model, output / "bases")
        if not base.exists():
            build_base(BASES[model], base)
        for seed in (101, 102):
            folder = output / f"{model}_{seed}"
            execute(Run("main", model, "hpt", seed, 3e-4), SETTINGS, base, folder)
            found[f"{model}, seed {seed}"] = visits(folder / "trainer" / FILE_NAME)
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
