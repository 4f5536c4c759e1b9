"""The methods compared, each a sequence of training phases with one of TRL's trainers or HPTTrainer."""

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
from hpt_trl.comparison.held_out_eval import MAX_COMPLETION_LENGTH, accuracy_reward
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.hpt import HPTTrainer

# A run ends when its budgets are spent, not at max_steps.
UNLIMITED_STEPS = 1_000_000

# A demonstration has the weight of one of eight rollouts, as in the reference code that produced the paper's numbers.
# In the paper's formula it has the weight of all rollouts of its prompt together, which is an ablation here.
_REFERENCE_WEIGHT = 1 / 8


@dataclass(frozen=True)
class Recipe:
    """Settings that all methods share.

    Args:
        prompts: prompts per optimizer step.
        generations: rollouts per prompt.
        steps: optimizer steps of the first budget.
        max_completion_length: maximum tokens of a rollout.
        bf16: whether to compute in bfloat16; weights stay in float32.
    """

    prompts: int
    generations: int
    steps: int
    max_completion_length: int = MAX_COMPLETION_LENGTH
    bf16: bool = False


@dataclass(frozen=True)
class Phase:
    """Training with one trainer.

    Args:
        trainer: "sft" or "grpo" for TRL's trainers, or "hpt".
        share: fraction of the first budget's steps; only used if another phase follows.
        options: options of HPTConfig.
        make_gate: makes a gate that no option of HPTConfig can select.
    """

    trainer: str
    share: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    make_gate: Callable[[Recipe], Gate] | None = None

    @property
    def has_warmup(self) -> bool:
        """Whether it begins with HPTTrainer's own SFT warm-up."""
        return bool(self.options.get("sft_warmup_steps"))


@dataclass(frozen=True)
class Method:
    """A row of the tables: its title and its phases in order."""

    title: str
    phases: tuple[Phase, ...]

    @property
    def begins_with_sft(self) -> bool:
        """Whether other training follows SFT, which then has the learning rate found for SFT."""
        return len(self.phases) > 1 or any(phase.has_warmup for phase in self.phases)


def _hpt(title: str, make_gate: Callable[[Recipe], Gate] | None = None, **options: Any) -> Method:
    return Method(title, (Phase("hpt", options={"sft_weight": _REFERENCE_WEIGHT} | options, make_gate=make_gate),))


def _of_algorithm(title: str, algorithm: str, make_gate: Callable[[Recipe], Gate] | None = None) -> Method:
    return Method(title, (Phase("hpt", options={"algorithm": algorithm}, make_gate=make_gate),))


def _chord_gate(recipe: Recipe) -> Gate:
    """CHORD's annealing, over half of the first budget's steps as its preset does over half of max_steps."""
    return partial(annealed_gate, steps=max(1, recipe.steps // 2))


def _off_policy_gate(recipe: Recipe) -> Gate:
    """HPT's gate with threshold 0, but unsolved prompts train on the off-policy loss, with the weight of HPT's SFT."""

    def gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        is_solved_P = (solve_rate_P > 0).to(solve_rate_P)
        return is_solved_P, torch.zeros_like(is_solved_P), _REFERENCE_WEIGHT * (1 - is_solved_P)

    return gate


def _mixed_gate(recipe: Recipe) -> Gate:
    """HPT's gate with threshold 0; above it, up to 2/8, the off-policy loss with the weight of HPT's SFT."""

    def gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        is_unsolved_P = (solve_rate_P == 0).to(solve_rate_P)
        is_above_P = (solve_rate_P > 2 / 8).to(solve_rate_P)
        return is_above_P, is_unsolved_P, _REFERENCE_WEIGHT * (1 - is_unsolved_P - is_above_P)

    return gate


# Half of the first budget's steps, as in SFT then GRPO, unless the loss on held-out demonstrations is flat before.
_WARMUP: dict[str, Any] = {"sft_warmup_steps": 30}
_UNTIL_FLAT: dict[str, Any] = {"sft_warmup_steps": UNLIMITED_STEPS}
# With any max_tokens_per_forward, rollouts without signal are skipped as with HPT's gate.
_ROLLOUTS_ONLY: dict[str, Any] = {"gate": "off", "max_tokens_per_forward": 1_000_000}

METHODS: dict[str, Method] = {
    "base": Method("base", ()),
    "sft": Method("SFT", (Phase("sft"),)),
    "grpo": Method("GRPO", (Phase("grpo"),)),
    "sft_grpo": Method("SFT then GRPO", (Phase("sft", share=0.5), Phase("grpo"))),
    "luffy": _of_algorithm("LUFFY", "luffy"),
    "srft": _of_algorithm("SRFT", "srft"),
    "chord": _of_algorithm("CHORD", "chord", make_gate=_chord_gate),
    "chord_mu": _of_algorithm("CHORD-mu", "chord_mu", make_gate=_chord_gate),
    "chord_phi": _of_algorithm("CHORD-phi", "chord_phi"),
    "dr_grpo": _hpt("Dr. GRPO", **_ROLLOUTS_ONLY),
    "flat_grpo": _hpt("SFT until flat, then Dr. GRPO", **_ROLLOUTS_ONLY, **_UNTIL_FLAT),
    "hpt": _hpt("HPT"),
    "warmup_hpt": _hpt("SFT warm-up, then HPT", **_WARMUP),
    "flat_hpt": _hpt("SFT until flat, then HPT", **_UNTIL_FLAT),
}
"""In the order of the tables."""

MAIN_METHODS = ("base", "sft", "grpo", "sft_grpo", "luffy", "srft", "chord", "hpt")
"""Methods of the main table."""

WITHOUT_DEMONSTRATIONS = ("base", "grpo", "dr_grpo")
HPT_METHODS = ("hpt", "warmup_hpt", "flat_hpt")

ABLATIONS: dict[str, Method] = {
    "gate_off": _hpt("gate off, rollouts only", **_ROLLOUTS_ONLY),
    "gate_1_of_8": _hpt("gate threshold 1/8", gate_threshold=1 / 8),
    "gate_2_of_8": _hpt("gate threshold 2/8", gate_threshold=2 / 8),
    "arm_off_policy": _hpt("off-policy loss instead of SFT", make_gate=_off_policy_gate),
    "arm_mixed": _hpt("SFT at 0, off-policy up to 2/8", make_gate=_mixed_gate),
    "weight_1": _hpt("SFT weight 1, the paper's formula", sft_weight=1.0),
    "weight_0.04": _hpt("SFT weight 0.04", sft_weight=0.04),
}
"""HPT with one setting changed. HPT itself has threshold 0, SFT on demonstrations and weight 1/8."""


def describe(method: str) -> list[dict[str, Any]]:
    """The phases of a method as JSON, to compare with the phases of a finished run."""
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
    warmup_learning_rate: float | None = None,
) -> Trainer:
    """The trainer of one phase, for one CPU thread.

    Args:
        phase: which trainer, and its options.
        recipe: settings that all methods share.
        model: model to train.
        tokenizer: its tokenizer.
        rows: data with the columns `prompt`, `demonstration` and `solution`.
        learning_rate: constant, as in arXiv 2509.04419.
        seed: seed of the data order and the rollouts.
        folder: output folder of the trainer.
        callbacks: callbacks, one of which must stop the training unless `max_steps` is set afterwards.
        warmup_learning_rate: of HPTTrainer's SFT warm-up, for phases that have one.
    """
    common = _common_options(learning_rate, seed, folder) | {"bf16": recipe.bf16}
    shared: dict[str, Any] = {"model": model, "processing_class": tokenizer, "callbacks": list(callbacks)}
    if phase.trainer == "sft":
        pairs = [{"prompt": row["prompt"], "completion": row["demonstration"]} for row in rows if row["demonstration"]]
        config = SFTConfig(per_device_train_batch_size=recipe.prompts, completion_only_loss=True, **common)
        return SFTTrainer(args=config, train_dataset=Dataset.from_list(pairs), **shared)
    common |= {
        "per_device_train_batch_size": recipe.prompts * recipe.generations,
        "num_generations": recipe.generations,
        "max_completion_length": recipe.max_completion_length,
    }
    shared |= {"reward_funcs": accuracy_reward, "train_dataset": Dataset.from_list(list(rows))}
    if phase.trainer == "grpo":
        return GRPOTrainer(args=GRPOConfig(**common), **shared)
    if phase.has_warmup:
        common["sft_warmup_learning_rate"] = warmup_learning_rate
    gate = phase.make_gate and phase.make_gate(recipe)
    return HPTTrainer(args=HPTConfig(**common, **phase.options), gate=gate, **shared)


def phase_steps(phase: Phase, steps: int) -> int:
    """Optimizer steps of a phase, given the total steps of its method."""
    return max(1, round(phase.share * steps))


def fresh_copy(model: Any, base: Path) -> Any:
    """A copy of the model, with the same weights, that no trainer has patched.

    Args:
        model: model with the weights.
        base: folder of the base model it was loaded from.
    """
    copy = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    copy.load_state_dict(model.state_dict())
    return copy


def _common_options(learning_rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """Options that all trainers share."""
    return {
        "output_dir": str(folder),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "seed": seed,
        "max_steps": UNLIMITED_STEPS,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
