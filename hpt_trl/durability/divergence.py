"""Divergence: optimizer steps that are skipped, weights that are not finite, and the way back to a checkpoint."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState

from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.models import is_sampling_error, not_finite
from hpt_trl.durability.checkpoints import mark_steps_diverged, newest_usable, rotate
from hpt_trl.durability.config import DurableGRPOConfig
from hpt_trl.durability.faults import first_fault


def weights_fault(model: nn.Module) -> str | None:
    """What is wrong with the weights of a model, the same on every process. Every process must call it."""
    name = not_finite(model)
    return first_fault(None if name is None else f"its parameter {name!r} is not finite")


def check_weights(model: nn.Module) -> None:
    """Reject a model whose weights are not finite. Every process must call it."""
    fault = weights_fault(model)
    if fault is not None:
        raise ValueError(f"The model cannot be trained: {fault}. Download or convert it again.")


class Divergence:
    """Counts skipped optimizer steps, and keeps a checkpoint from before a divergence until it is not needed.

    Args:
        args: of the run.
    """

    def __init__(self, args: DurableGRPOConfig) -> None:
        self.args = args
        self.skipped = 0  # steps since the start of the run
        self.in_row = 0
        self._unproven: tuple[Path, str | None] | None = None  # arguments of the rotation that waits

    def count(self, norm: float) -> bool:
        """Count an optimizer step by its gradient norm; returns whether the norm is bad."""
        limit = self.args.skip_grad_norm_above
        is_bad = not math.isfinite(norm) or (limit is not None and norm > limit)
        self.in_row = self.in_row + 1 if is_bad else 0
        if not is_bad:
            self.rotate_proven()
        return is_bad

    def raise_if_stuck(self, norm: float, step: int) -> None:
        """Raise RunError after `max_skipped_steps_in_row` steps with a bad norm.

        Args:
            norm: gradient norm of the last one.
            step: optimizer steps done before it.
        """
        if self.in_row < self.args.max_skipped_steps_in_row:
            return
        limit = self.args.skip_grad_norm_above
        is_finite = math.isfinite(norm)
        reason = f"is above skip_grad_norm_above ({limit})" if is_finite else "is not finite"
        fault = (
            f"The gradient norm of {self.in_row} consecutive optimizer steps, up to step {step}, {reason} (the last: "
            f"{norm:g}). Training has stopped making progress. max_skipped_steps_in_row sets the limit."
        )
        advice = " Or raise skip_grad_norm_above." if is_finite else ""
        # The last of these steps is not done yet.
        raise self.error(fault, step + 1, advice)

    def raise_if_not_finite(self, model: nn.Module, step: int) -> None:
        """Raise RunError if the weights after a step are not finite. Every process must call it."""
        fault = weights_fault(model)
        if fault is not None:
            raise self.error(f"The policy has diverged: after step {step}, {fault}.", step)

    def error(self, fault: str, step: int, advice: str = "") -> RunError:
        """The error that ends a diverged run; checkpoints with the same weights are marked.

        Args:
            fault: what happened, as a sentence.
            step: optimizer steps done, including those that were skipped.
            advice: what else may help, with a space before it.
        """
        folder, since = Path(str(self.args.output_dir)), self._unchanged_since(step)
        mark_steps_diverged(folder, range(since, step + 1), f"the run stopped with these weights after step {step}")
        way = self._way_back(folder, since) if step else "No step was made yet: use another model or dtype."
        return RunError(f"{fault} {way}{advice}")

    @contextmanager
    def reporting_bad_probabilities(self, state: TrainerState) -> Iterator[None]:
        """Raise LocalRunError where nothing can be sampled, because activations are not finite."""
        try:
            yield
        except RuntimeError as error:
            if not is_sampling_error(error):
                raise
            first = str(error).splitlines()[0]
            fault = f"The policy has diverged: after step {state.global_step}, nothing can be sampled ({first})."
            raise LocalRunError(str(self.error(fault, state.global_step))) from error

    def _unchanged_since(self, step: int) -> int:
        """The step after which the weights were as they are after `step` steps: skipped steps change nothing."""
        return step - self.in_row

    def _way_back(self, folder: Path, since: int) -> str:
        rate, default = self.args.learning_rate, type(self.args).learning_rate
        good = newest_usable(folder, before=since)
        option = "--overwrite_output_dir true" if good is None else "--resume_from_checkpoint auto"
        is_there = "There is no checkpoint from before" if good is None else f"{str(good)!r} is from before"
        way = "Start from scratch" if good is None else "Resume from it"
        precision = ", and in bf16 or fp32 instead of fp16" if self.args.fp16 else ""
        return (
            f"{is_there}. {way} with a lower learning rate (it was {rate:g}){precision}: add `{option} --learning_rate "
            f"{min(rate / 10, default):g}` to the command; in Python, these are arguments of the same names."
        )

    def rotate_after(self, checkpoint: Path, step: int, best: str | None) -> None:
        """Delete checkpoints beyond `save_total_limit`, except the newest from before the current weights.

        It is deleted once a step with a good norm has shown that the new checkpoint can be trained on.

        Args:
            checkpoint: the one just written.
            step: optimizer steps done.
            best: the one with the best metric, which is kept too.
        """
        spare = newest_usable(checkpoint.parent, before=self._unchanged_since(step))
        rotate(checkpoint, self.args.save_total_limit, best, spare)
        self._unproven = checkpoint, best

    def rotate_proven(self) -> None:
        """Delete checkpoints beyond `save_total_limit`: the newest one can be trained on."""
        if self._unproven is not None:
            checkpoint, best = self._unproven
            rotate(checkpoint, self.args.save_total_limit, best)
        self._unproven = None

    def state_dict(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {"skipped_steps": self.skipped, "skipped_in_row": self.in_row}

    def restore(self, state: Mapping[str, Any], is_changed: bool) -> None:
        """Restore the counts of a checkpoint.

        Args:
            state: what `state_dict` returned.
            is_changed: whether options have changed since: then the next steps are judged by themselves.
        """
        self.skipped = state["skipped_steps"]
        self.in_row = 0 if is_changed else state["skipped_in_row"]


def rescale_learning_rates(optimizer: Any, scheduler: Any, ratio: float) -> None:
    """Multiply the learning rates that an optimizer and its scheduler have taken from a checkpoint.

    Both restore the rates of the earlier run, so that a new `learning_rate` alone would change nothing.
    """
    for group in optimizer.param_groups:
        group.update({name: group[name] * ratio for name in ("lr", "initial_lr") if name in group})
    inner = getattr(scheduler, "scheduler", scheduler)  # accelerate's wrapper
    state = inner.state_dict()
    lists = {name: [rate * ratio for rate in state[name]] for name in ("base_lrs", "_last_lr") if name in state}
    inner.load_state_dict(state | lists)
