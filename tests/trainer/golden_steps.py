"""Parameters after three steps of every preset, every gate, and the options that change how a batch is computed.

`python -m tests.trainer.golden_steps --write FILE` records them, `--compare FILE` exits with 1 if a single bit differs.
Bits depend on the CPU and on torch: compare on the machine that recorded them. `test_golden_steps.py` compares the
committed projections, which hold on every machine, to rounding.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from tests.tiny import build_tiny_model, make_trainer, parameters

TABLE = {"0": [0, 1], "1": [0.5, 0.5], "2": [0.7, 0.2, 0.3], "3": [1, 0], "4": [1, 0]}
PRESETS = ("hpt", "sft", "luffy", "srft", "chord", "grpo", "dr_grpo", "cispo", "gspo", "ppo", "reinforce")
CASES: dict[str, dict[str, Any]] = {
    **{f"algorithm_{name}": {"algorithm": name} for name in PRESETS},
    "gate_off": {"gate": "off"},
    "gate_linear": {"gate": "linear"},
    "gate_table": {"gate": "table", "gate_table": TABLE},
    "gate_threshold": {"gate_threshold": 0.25},
    "gate_off_policy": {"gate_threshold": 0.25, "gate_off_policy_threshold": 0.5},
    "mean_reward": {"gate": "linear", "gate_success_value": None},
    "token_normalization": {"gate_threshold": 0.25, "sft_normalization": "token"},
    "light_demonstrations": {"gate_threshold": 0.25, "sft_weight": 0.25},
    "short_demonstrations": {"gate_threshold": 0.25, "max_demonstration_length": 4},
    "rows_kept": {"gate_threshold": 0.25, "skip_zero_signal_rollouts": False},
    "token_budget": {"gate_threshold": 0.25, "max_tokens_per_forward": 40},
    "kl": {"gate_threshold": 0.25, "beta": 0.1},
    "bnpo": {"gate_threshold": 0.25, "loss_type": "bnpo"},
    "dapo": {"gate_threshold": 0.25, "loss_type": "dapo", "scale_rewards": "group"},
    "grpo_loss": {"gate_threshold": 0.25, "loss_type": "grpo"},
    "entropy_quantile": {"gate_threshold": 0.25, "top_entropy_quantile": 0.5},
    "two_iterations": {"gate_threshold": 0.25, "num_iterations": 2},
    "fewer_generations": {"gate_threshold": 0.25, "steps_per_generation": 8},
    "more_generations": {"gate_threshold": 0.25, "steps_per_generation": 2},
    "scaled_luffy": {"algorithm": "luffy", "scale_rewards": "group"},
    "bf16": {"gate_threshold": 0.25, "bf16": True},
}  # fmt: skip


def projections(vector: torch.Tensor) -> list[float]:
    """Eight seeded projections of the parameters: what a file can hold of them."""
    directions = torch.randn(8, len(vector), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (directions @ vector.double() / len(vector) ** 0.5).tolist()


def record(model: str, folder: Path, case: str) -> dict[str, Any]:
    """SHA-256 and projections of the parameters after the three steps of one case."""
    trainer = make_trainer(model, folder, **CASES[case])
    trainer.train()
    vector = parameters(trainer).float()
    return {"sha256": hashlib.sha256(vector.numpy().tobytes()).hexdigest(), "projections": projections(vector)}


def main() -> None:
    """Record or compare all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="file to record into")
    parser.add_argument("--compare", type=Path, help="recorded file to compare with, bit by bit")
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_model(Path(folder) / "tiny")
        found = {case: record(model, Path(folder) / case, case) for case in CASES}
    if args.write:
        args.write.write_text(json.dumps(found, indent=1) + "\n")
    if args.compare:
        expected = json.loads(args.compare.read_text())
        differing = [case for case in CASES if found[case]["sha256"] != expected[case]["sha256"]]
        print(f"{len(CASES) - len(differing)} of {len(CASES)} cases are bitwise identical; others: {differing}")
        raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
