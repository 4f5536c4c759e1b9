"""What a run has spent and what it can do by now; and when it is over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from hpt_trl.comparison.exam import Exam, Marks


@dataclass
class Meter:
    """Counts tokens that pass through a model, padding left out.

    Args:
        pad_id: of the padding.
        forwarded: tokens forwarded, each time they are: prompts once more behind their rollouts.
        backwarded: tokens backpropagated.
    """

    pad_id: int
    forwarded: int = 0
    backwarded: int = 0
    _is_paused: bool = field(default=False, repr=False)

    @property
    def compute(self) -> int:
        """Token passes: a backward pass is twice the work of a forward pass."""
        return self.forwarded + 2 * self.backwarded

    def watch(self, model: nn.Module) -> None:
        """Count what passes through a causal LM of transformers from now on."""
        # Its decoder: TRL's own forwards go past the head.
        model.get_submodule("model").register_forward_pre_hook(self._count, with_kwargs=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """An exam is no training."""
        self._is_paused = True
        yield
        self._is_paused = False

    def _count(self, module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        if self._is_paused:
            return
        ids = arguments[0] if arguments else keywords["input_ids"]
        tokens = int((ids != self.pad_id).sum())
        self.forwarded += tokens
        self.backwarded += tokens * torch.is_grad_enabled()


@dataclass
class Progress(TrainerCallback):
    """Measures a run as it goes, notes when a budget is spent, and ends it when all are.

    Args:
        meter: of the tokens.
        tokenizer: of the model.
        curve: the small exam, asked every `curve_every` steps of the first budget.
        curve_every: optimizer steps.
        steps: the first budget, optimizer steps.
        compute: the second, token passes; None: there is none.
        at_budget: asked once for each budget, "steps" and "compute", when it is spent.
        seed: of the exams.
    """

    meter: Meter
    tokenizer: Any
    curve: Exam
    curve_every: int
    steps: int
    compute: float | None
    at_budget: Callable[[str, Any], None]
    seed: int
    phase_end: int | None = None  # step at which this phase hands over to the next
    step: int = 0
    points: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[str, dict[str, int]] = field(default_factory=dict)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.step += 1
        is_last_call = self._note_budgets(model)
        if self._is_on_curve() or is_last_call:
            self.measure(model)
        if is_last_call or self.step == self.phase_end:
            control.should_training_stop = True

    def _is_on_curve(self) -> bool:
        """Every so many steps, or every so many tokens beyond the first budget: cheap steps come by the thousand."""
        if self.step <= self.steps:
            return self.step % self.curve_every == 0
        share = (self.compute or 0) / max(1, self.steps // self.curve_every)
        return self.meter.compute - self.points[-1]["compute"] >= share

    def _note_budgets(self, model: Any) -> bool:
        """Ask the exams of budgets spent by this step. Returns whether none is left."""
        reached = {"steps": self.step >= self.steps}
        if self.compute is not None:
            reached["compute"] = self.meter.compute >= self.compute
        for name, is_spent in reached.items():
            if is_spent and name not in self.spent:
                self.spent[name] = self._costs()
                with self.meter.paused():
                    self.at_budget(name, model)
        return all(reached.values())

    def measure(self, model: Any) -> Marks:
        """Ask the small exam and note a point of the curve."""
        with self.meter.paused():
            marks = self.curve.mark(model, self.tokenizer, self.seed)
        known = {"accuracy": marks.shares(), "tokens": marks.tokens, "entropy": marks.entropy}
        self.points.append(self._costs() | known)
        return marks

    def _costs(self) -> dict[str, int]:
        return {
            "step": self.step,
            "compute": self.meter.compute,
            "forwarded": self.meter.forwarded,
            "backwarded": self.meter.backwarded,
        }
