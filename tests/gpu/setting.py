"""Sizes of the check, and the models that it makes on the spot."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from hpt_trl.miniature.build import build_tokenizer
from tests.tiny import CHATML


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Args:
        models: config of each model, by name.
        rows_per_micro_batch: rollouts per micro-batch in the timed steps, by model.
        repeats: measurements of every timed step, by model.
        length: mean tokens of a timed rollout, which has between half of it and one and a half times as many.
        matrix: rows and columns of the matrix product that measures the chip's rate.
        launches: launch configs of `configs/accelerate` to run.
    """

    models: dict[str, dict[str, int]]
    rows_per_micro_batch: dict[str, int]
    repeats: dict[str, int]
    length: int
    matrix: int
    launches: tuple[str, ...]


# Shapes of Qwen2.5-0.5B and Qwen2.5-1.5B.
_HALF = {
    "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2,
}  # fmt: skip
_LARGE = _HALF | {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
}  # fmt: skip
_TINY = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
SIZES = {
    # Rollouts of 640 to 1,920 tokens. Activations of eight rows of the small model and four of the large one take
    # about 30 GB.
    "full": Sizes(
        models={"0.5b": _HALF, "1.5b": _LARGE},
        rows_per_micro_batch={"0.5b": 8, "1.5b": 4},
        repeats={"0.5b": 2, "1.5b": 1},
        length=1280,
        matrix=8192,
        launches=("zero1", "zero2", "zero3", "fsdp2"),
    ),
    "tiny": Sizes(
        models={"0.5b": _TINY, "1.5b": _TINY | {"num_hidden_layers": 3}},
        rows_per_micro_batch={"0.5b": 8, "1.5b": 4},
        repeats={"0.5b": 1, "1.5b": 1},
        length=24,
        matrix=64,
        launches=("zero2",),
    ),
}


@dataclass(frozen=True)
class Setting:
    """Where a check runs.

    Args:
        device: "cuda" or "cpu".
        sizes_name: a key of `SIZES`.
        folder: for models and runs; what is in it may be deleted afterwards.
    """

    device: str
    sizes_name: str
    folder: Path

    @cached_property
    def sizes(self) -> Sizes:
        return SIZES[self.sizes_name]

    @property
    def options(self) -> dict[str, Any]:
        """Options of a trainer's config that put it on the device."""
        return {"use_cpu": self.device == "cpu"}

    def run_folder(self, name: str) -> Path:
        """A folder for a run."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def model(self, name: str) -> str:
        """Folder of a model with random weights, made when it is first asked for."""
        path = self.folder / f"model_{name}"
        if not (path / "config.json").exists():
            tokenizer = build_tokenizer()
            tokenizer.chat_template = CHATML
            config = Qwen2Config(
                **self.sizes.models[name],
                tie_word_embeddings=True,
                max_position_embeddings=32768,
                rope_theta=1e6,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            torch.manual_seed(0)
            with torch.device(self.device):
                model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            tokenizer.save_pretrained(path)
            model.save_pretrained(path)
        return str(path)


@dataclass
class Finding:
    """What one check found.

    Args:
        name: of the check.
        value: what was measured.
        goal: what it should be.
        passed: whether it is; None if there is no goal.
        more: what else is worth knowing.
    """

    name: str
    value: str
    goal: str
    passed: bool | None
    more: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Check = Callable[[Setting], Iterator[Finding]]


def at_most(name: str, value: float, limit: float | None, **more: Any) -> Finding:
    """A finding about a number with an upper limit, or with none."""
    goal = "" if limit is None else f"<= {limit:g}"
    return Finding(name, f"{value:.4g}", goal, None if limit is None else value <= limit, more)
