"""Train and evaluate SFT, and HPT after an SFT warm-up, as `hpt-trl quickstart` does with GRPO and HPT.

python notebooks/results/quickstart/other_methods.py
"""

import json
from pathlib import Path

import torch

from hpt_trl.commands.quickstart import QuickstartArguments, train_and_score

METHODS = {
    "SFT": ["--algorithm", "sft"],
    "SFT warm-up, then HPT": ["--algorithm", "warmup_hpt", "--learning_rate", "2e-4"],
}


def main() -> None:
    """Write other_methods.json beside this file."""
    torch.set_num_threads(1)
    args = QuickstartArguments("runs/quickstart_others")
    names = {method: method.replace(", ", "_").replace(" ", "_") for method in METHODS}
    scores = {
        method: [train_and_score(args, names[method], seed, options) for seed in range(args.seeds)]
        for method, options in METHODS.items()
    }
    content = {"problems": args.problems, "max_steps": args.max_steps, "scores": scores}
    (Path(__file__).parent / "other_methods.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
