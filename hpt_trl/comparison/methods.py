"""The methods compared, as phases of training; each phase is one of TRL's trainers or HPTTrainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from hpt_trl.algorithm.gate import Gate, annealed_gate
from hpt_trl.comparison.exam import LONGEST_ANSWER, accuracy
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.hpt import HPTTrainer

# Budgets end a run, not its config.
_ENDLESS = 1_000_000

# A demonstration counts as one of eight rollouts does, as in the reference code, by which the paper's numbers were
# measured; by the paper's formula it counts as all of its prompt's rollouts together, an ablation here.
_REFERENCE_WEIGHT = 1 / 8


@dataclass(frozen=True)
class Recipe:
    """What all methods share.

    Args:
        prompts: of an optimizer step.
        generations: rollouts of a prompt.
        steps: optimizer steps of the first budget.
        longest_answer: tokens of a rollout.
        bf16: whether to multiply in bfloat16; weights stay float32.
    """

    prompts: int
    generations: int
    steps: int
    longest_answer: int = LONGEST_ANSWER
    bf16: bool = False


@dataclass(frozen=True)
class Phase:
    """One trainer.

    Args:
        trainer: "sft", "grpo" (TRL's own) or "hpt".
        share: of the first budget's steps, where another phase follows.
        options: of HPTConfig.
        make_gate: makes a gate that no option names.
    """

    trainer: str
    share: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    make_gate: Callable[[Recipe], Gate] | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table: its name, and what is done one after the other."""

    title: str
    phases: tuple[Phase, ...]


def _hpt(title: str, make_gate: Callable[[Recipe], Gate] | None = None, **options: Any) -> Method:
    return Method(title, (Phase("hpt", options={"sft_weight": _REFERENCE_WEIGHT} | options, make_gate=make_gate),))


def _of_algorithm(title: str, algorithm: str, make_gate: Callable[[Recipe], Gate] | None = None) -> Method:
    return Method(title, (Phase("hpt", options={"algorithm": algorithm}, make_gate=make_gate),))


def _chord_gate(recipe: Recipe) -> Gate:
    """CHORD's anneal over the first half of the first budget, as its preset does over half of max_steps."""
    return partial(annealed_gate, steps=max(1, recipe.steps // 2))


def _off_policy_gate(recipe: Recipe) -> Gate:
    """HPT's switch at 0, to the demonstration's off-policy gradient, as heavy as HPT's SFT."""

    def gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        is_solved_P = (solve_rate_P > 0).to(solve_rate_P)
        return is_solved_P, torch.zeros_like(is_solved_P), _REFERENCE_WEIGHT * (1 - is_solved_P)

    return gate


def _mixed_gate(recipe: Recipe) -> Gate:
    """HPT's switch at 0, and from there to 2/8 the demonstration's off-policy gradient, as heavy as HPT's SFT."""

    def gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        is_never_P, is_often_P = (solve_rate_P == 0).to(solve_rate_P), (solve_rate_P > 2 / 8).to(solve_rate_P)
        return is_often_P, is_never_P, _REFERENCE_WEIGHT * (1 - is_never_P - is_often_P)

    return gate


METHODS: dict[str, Method] = {
    "base": Method("base", ()),
    "sft": Method("SFT", (Phase("sft"),)),
    "grpo": Method("GRPO", (Phase("grpo"),)),
    "sft_grpo": Method("SFT then GRPO", (Phase("sft", share=0.5), Phase("grpo"))),
    "luffy": _of_algorithm("LUFFY", "luffy"),
    "srft": _of_algorithm("SRFT", "srft"),
    "chord": _of_algorithm("CHORD", "chord", make_gate=_chord_gate),
    "hpt": _hpt("HPT"),
}
"""In the order of the table."""

WITHOUT_DEMONSTRATIONS = ("base", "grpo")

ABLATIONS: dict[str, Method] = {
    # Dr. GRPO as HPT has it. With a bound, however high, rollouts that teach nothing are left out here too.
    "gate_off": _hpt("gate off, rollouts alone", gate="off", max_tokens_per_forward=1_000_000),
    "gate_1_of_8": _hpt("gate threshold 1/8", gate_threshold=1 / 8),
    "gate_2_of_8": _hpt("gate threshold 2/8", gate_threshold=2 / 8),
    "arm_off_policy": _hpt("demonstration arm off-policy", make_gate=_off_policy_gate),
    "arm_mixed": _hpt("SFT at 0, off-policy to 2/8", make_gate=_mixed_gate),
    "weight_1": _hpt("SFT weight 1, the paper's formula", sft_weight=1.0),
    "weight_0.04": _hpt("SFT weight 0.04", sft_weight=0.04),
}
"""HPT with one thing changed; HPT itself is threshold 0, arm SFT, weight 1/8."""


def describe(method: str) -> list[dict[str, Any]]:
    """What tells a method's phases from other phases, in JSON's types."""
    return [
        {
            "trainer": phase.trainer,
            "share": phase.share,
            "options": dict(phase.options),
            "gate": phase.make_gate.__name__.strip("_") if phase.make_gate else None,
        }
        for phase in (METHODS | ABLATIONS)[method].phases
    ]


def build_trainer(
    phase: Phase,
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    learning_rate: float,
    seed: int,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
) -> Trainer:
    """The trainer of one phase, on one thread of a CPU.

    Args:
        phase, recipe: what to do.
        model, tokenizer: whom to train.
        rows: `prompt`, `demonstration`, `solution`.
        learning_rate: constant, as in arXiv 2509.04419.
        seed: of order and rollouts.
        folder: of the trainer's own files.
        callbacks: one of which ends the run.
    """
    common = _common_options(learning_rate, seed, folder) | {"bf16": recipe.bf16}
    shared: dict[str, Any] = {"model": model, "processing_class": tokenizer, "callbacks": list(callbacks)}
    if phase.trainer == "sft":
        pairs = [{"prompt": row["prompt"], "completion": row["demonstration"]} for row in rows]
        config = SFTConfig(per_device_train_batch_size=recipe.prompts, completion_only_loss=True, **common)
        return SFTTrainer(args=config, train_dataset=Dataset.from_list(pairs), **shared)
    common |= {
        "per_device_train_batch_size": recipe.prompts * recipe.generations,
        "num_generations": recipe.generations,
        "max_completion_length": recipe.longest_answer,
    }
    shared |= {"reward_funcs": accuracy, "train_dataset": Dataset.from_list(list(rows))}
    if phase.trainer == "grpo":
        return GRPOTrainer(args=GRPOConfig(**common), **shared)
    gate = phase.make_gate and phase.make_gate(recipe)
    return HPTTrainer(args=HPTConfig(**common, **phase.options), gate=gate, **shared)


def phase_steps(phase: Phase, steps: int) -> int:
    """Optimizer steps of a phase, of so many for the whole method."""
    return max(1, round(phase.share * steps))


def fresh_copy(model: Any, base: Path) -> Any:
    """The same weights in a model that no trainer has patched yet.

    Args:
        model: with the weights.
        base: folder of the model it was.
    """
    copy = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    copy.load_state_dict(model.state_dict())
    return copy


def _common_options(learning_rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """Options of every trainer."""
    return {
        "output_dir": str(folder),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "seed": seed,
        "max_steps": _ENDLESS,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
