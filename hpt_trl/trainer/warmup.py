"""The SFT warm-up: optimizer steps on demonstrations alone, before the gate acts, until their held-out loss is flat."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather
from datasets import Dataset

from hpt_trl.common.logs import get_logger
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.batches import GatedBatch
from hpt_trl.trainer.demonstration_forms import is_missing
from hpt_trl.trainer.demonstration_step import held_out_nll

logger = get_logger(__name__)

TOLERANCE = 0.02
"""The held-out loss is flat if it has improved by less than this fraction within a window: arXiv 2512.11470."""

_MAX_HELD_OUT = 256
"""Rows that are enough to tell whether the loss is flat."""


class ScaledRate:
    """Scales the learning rates that the scheduler sets, for as long as it is called with a factor other than 1."""

    def __init__(self) -> None:
        self.scheduled: list[float] = []
        self.applied: list[float] = []

    def apply(self, groups: Sequence[MutableMapping[str, Any]], factor: float) -> None:
        """Scale the rates of the next optimizer step. It may be called more than once per step.

        Args:
            groups: parameter groups of an optimizer.
            factor: the rate that is wanted over the scheduled one.
        """
        rates = [float(group["lr"]) for group in groups]
        # A scheduler that has not stepped leaves the rate that was applied.
        known = zip(rates, self.applied or rates, self.scheduled or rates)
        self.scheduled = [scheduled if rate == applied else rate for rate, applied, scheduled in known]
        self.applied = [rate * factor for rate in self.scheduled]
        for group, rate in zip(groups, self.applied):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"scheduled": self.scheduled, "applied": self.applied}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scheduled, self.applied = list(state["scheduled"]), list(state["applied"])


class SFTWarmup:
    """
    Decides which optimizer steps are warm-up and which demonstrations they train on.

    A step trains on as many different demonstrations as it has prompts, as SFT does with the same number of prompts per
    step. Their order depends on the seed and the step only, so that a resumed run continues with the same ones.

    Args:
        args: options `sft_warmup_*` and the seed.
        rows: training data; only a map-style dataset can be drawn from, a stream trains on the prompts that it yields.
        eval_rows: held-out data; its demonstrations decide when the warm-up ends. If it has none, a share of the
            training rows is set aside.

    Source: SFT until the held-out loss is flat, then RL: arXiv 2512.11470.
    """

    def __init__(self, args: HPTConfig, rows: Any, eval_rows: Any) -> None:
        self.args = args
        self.ended_at: int | None = None if args.sft_warmup_steps else 0
        self.held_out_nll: dict[int, float] = {}
        self.rate = ScaledRate()
        self.has_new_moments = not args.sft_warmup_steps
        self.rows = rows if isinstance(rows, Dataset) else None
        self.training: list[int] = []
        self.held_out: list[Mapping[str, Any]] = []
        if args.sft_warmup_steps and self.rows is not None:
            self.training = _demonstrated(self.rows)
            self._hold_out(eval_rows)

    def _hold_out(self, eval_rows: Any) -> None:
        """Choose the held-out demonstrations: those of the evaluation data, or a seeded share of the training rows."""
        evaluated = _demonstrated(eval_rows) if isinstance(eval_rows, Dataset) else []
        if evaluated:
            self.held_out = [eval_rows[row] for row in evaluated[:_MAX_HELD_OUT]]
            return
        order = torch.randperm(len(self.training), generator=torch.Generator().manual_seed(self.args.seed)).tolist()
        # At least one row is left to train on.
        count = min(round(self.args.sft_warmup_holdout * len(order)), _MAX_HELD_OUT, len(order) - 1)
        set_aside = sorted(self.training[index] for index in order[:count])
        self.held_out = [self.rows[row] for row in set_aside]  # type: ignore[index]
        self.training = sorted(set(self.training) - set(set_aside))
        if count:
            logger.info(
                f"SFT warm-up: {count} of {len(order)} training rows with a demonstration are held out of it; it ends "
                "when their loss is flat. They take part in training afterwards."
            )

    def is_active(self, step: int) -> bool:
        """Whether the optimizer step, counted from 0, belongs to the warm-up."""
        if self.ended_at is None and step >= self.args.sft_warmup_steps:
            self.end(step, "after sft_warmup_steps")
        return self.ended_at is None

    def end(self, step: int, reason: str) -> None:
        """End the warm-up before an optimizer step."""
        self.ended_at = step
        logger.info(f"SFT warm-up: over at step {step}, {reason}.")

    def rate_factor(self, step: int) -> float:
        """The learning rate of an optimizer step over the scheduled one."""
        own = self.args.sft_warmup_learning_rate
        return own / self.args.learning_rate if own is not None and self.is_active(step) else 1.0

    def prepare_optimizer(self, optimizer: Any, step: int) -> None:
        """Set the learning rates of an optimizer step, and begin with new moments after the warm-up.

        The gradient of SFT is many times that of the policy: with its second moment, Adam's updates would be too small
        for hundreds of steps. Two separate runs have new moments as well.
        """
        if self.args.sft_warmup_learning_rate is not None:
            self.rate.apply(optimizer.param_groups, self.rate_factor(step))
        if not self.is_active(step) and not self.has_new_moments:
            clear_moments(optimizer)
            self.has_new_moments = True

    def must_measure(self, step: int) -> bool:
        """Whether the held-out loss is due before this optimizer step."""
        is_due = step % self.args.sft_warmup_window == 0 and step not in self.held_out_nll
        return bool(self.held_out) and is_due and self.is_active(step)

    def note(self, step: int, nll: float) -> None:
        """Note the held-out NLL before an optimizer step, and end the warm-up where it is flat."""
        before = self.held_out_nll.get(step - self.args.sft_warmup_window)
        self.held_out_nll[step] = nll
        if before is not None and (before - nll) < TOLERANCE * before:
            self.end(step, f"as the held-out loss went from {before:.4f} to {nll:.4f} nats per token")

    def examples(self, generation: int, count: int) -> list[Mapping[str, Any]]:
        """The data rows of one generation on all processes: different ones, then padding where there are not as many.

        Args:
            generation: number of the generation, from 0.
            count: prompts of a generation on all processes.
        """
        used = min(count, len(self.training))
        positions = range(generation * used, (generation + 1) * used)
        orders = {epoch: self._order(epoch) for epoch in {position // len(self.training) for position in positions}}
        chosen = [orders[position // len(self.training)][position % len(self.training)] for position in positions]
        rows: list[Mapping[str, Any]] = [self.rows[row] for row in chosen]  # type: ignore[index]
        return rows + [rows[0]] * (count - used)

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.args.seed + epoch)
        return [self.training[index] for index in torch.randperm(len(self.training), generator=generator).tolist()]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {
            "ended_at": self.ended_at,
            "held_out_nll": dict(self.held_out_nll),
            "rate": self.rate.state_dict(),
            "has_new_moments": self.has_new_moments,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.ended_at, self.held_out_nll = state["ended_at"], dict(state["held_out_nll"])
        self.rate.load_state_dict(state["rate"])
        self.has_new_moments = state["has_new_moments"]


def clear_moments(optimizer: Any) -> None:
    """Let an optimizer begin as new. Its wrappers, of accelerate or DeepSpeed, are looked through."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    optimizer.state.clear()


def is_in_warmup(trainer: Any, warmup: SFTWarmup) -> bool:
    """Whether the generation that begins belongs to the warm-up, which ends here if the held-out loss is flat.

    Every process must call it.
    """
    step, metrics = trainer.state.global_step, trainer._metrics["train"]
    if warmup.must_measure(step):
        nll = held_out_nll(trainer, warmup.held_out)
        warmup.note(step, nll)
        metrics["hpt/held_out_nll"].append(nll)
    if warmup.args.sft_warmup_steps:
        metrics["hpt/warmup"].append(float(warmup.is_active(step)))
    return warmup.is_active(step)


def warmup_batch(trainer: Any, warmup: SFTWarmup, inputs: Sequence[Mapping[str, Any]]) -> GatedBatch:
    """A generation of demonstrations, with the weights of plain SFT. Every process must call it.

    Args:
        trainer: an HPTTrainer.
        warmup: chooses the data rows.
        inputs: the data rows of B rollouts on this process. A stream trains on their demonstrations, one per prompt;
            of other data, as many different rows with a demonstration are drawn as there are prompts.
    """
    rows = trainer._rows
    if warmup.rows is not None:
        prompts = len(inputs) * rows.processes // rows.group_size
        rows = replace(rows, groups=min(prompts, len(warmup.training)))
        generation = trainer._step // (trainer.args.steps_per_generation * trainer.num_iterations)
        examples = warmup.examples(generation, prompts)
        grouped = [example for example in examples for _ in range(rows.group_size)]
        inputs = grouped[rows.process * len(inputs) : (rows.process + 1) * len(inputs)]
    batch = trainer._batch_without_rollouts(inputs, rows)
    # The loss is a mean over demonstrations, or over their tokens: the trainer divides by prompts, or by tokens.
    used = gather(batch["demonstration_mask"].any(dim=1).float()).mean().clamp(min=1e-9)
    per_prompt = trainer.args.sft_normalization == "prompt"
    batch["sft_weight"] = 1 / (used * trainer.num_generations) if per_prompt else torch.ones_like(used)
    return batch


def _demonstrated(rows: Dataset) -> list[int]:
    """Indices of the rows that have a demonstration."""
    if "demonstration" not in rows.column_names:
        return []
    return [row for row, demonstration in enumerate(rows["demonstration"][:]) if not is_missing(demonstration)]
