"""Budgets of a run: counts tokens and steps, evaluates when a budget is spent, and stops the run after the last."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from hpt_trl.comparison.held_out_eval import HeldOutEval


@dataclass
class TokenCounter:
    """Counts tokens that pass through a model, without padding.

    Args:
        pad_id: pad token id.
        forwarded: tokens in forward passes; a token counts every time, so prompts count again with their rollouts.
        backwarded: tokens in backward passes.
    """

    pad_id: int
    forwarded: int = 0
    backwarded: int = 0
    _is_paused: bool = field(default=False, repr=False)

    @property
    def compute(self) -> int:
        """Token passes: a forward pass counts 1 per token, a backward pass 2."""
        return self.forwarded + 2 * self.backwarded

    def attach(self, model: nn.Module) -> None:
        """Count the tokens of a causal LM of transformers from now on."""
        # The hook is on the decoder because some of TRL's forward passes bypass the LM head.
        model.get_submodule("model").register_forward_pre_hook(self._count, with_kwargs=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count inside this context: evaluation is not training."""
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
class BudgetCallback(TrainerCallback):
    """Evaluates a run regularly and when a budget is spent, and stops it when all budgets are.

    Args:
        counter: counts the tokens.
        tokenizer: tokenizer of the model.
        curve_eval: the small evaluation of the learning curve; None for no curve.
        curve_every: optimizer steps between two points of the curve.
        steps: first budget, in optimizer steps.
        compute: second budget, in token passes; None for no second budget.
        at_budget: called once per budget, "steps" or "compute", with the model when that budget is spent.
        seed: seed of the evaluations.
    """

    counter: TokenCounter
    tokenizer: Any
    curve_eval: HeldOutEval | None
    curve_every: int
    steps: int
    compute: float | None
    at_budget: Callable[[str, Any], None]
    seed: int
    phase_end: int | None = None  # step at which the next phase starts
    step: int = 0
    points: list[dict[str, Any]] = field(default_factory=list)
    spent: dict[str, dict[str, int]] = field(default_factory=dict)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.step += 1
        is_finished = self._check_budgets(model)
        if self.curve_eval is not None and (is_finished or self._is_curve_due()):
            self.add_curve_point(model)
        if is_finished or self.step == self.phase_end:
            control.should_training_stop = True

    def _is_curve_due(self) -> bool:
        """Within the first budget, points are equally spaced in steps.

        Beyond it they are spaced in token passes, because methods with cheap steps take hundreds of them.
        """
        if self.step <= self.steps:
            return self.step % self.curve_every == 0
        passes_between_points = (self.compute or 0) / max(1, self.steps // self.curve_every)
        return self.counter.compute - self.points[-1]["compute"] >= passes_between_points

    def _check_budgets(self, model: Any) -> bool:
        """Evaluate for each budget that this step has spent. Returns whether all budgets are spent."""
        reached = {"steps": self.step >= self.steps}
        if self.compute is not None:
            reached["compute"] = self.counter.compute >= self.compute
        for name, is_spent in reached.items():
            if is_spent and name not in self.spent:
                self.spent[name] = self._costs()
                with self.counter.paused():
                    self.at_budget(name, model)
        return all(reached.values())

    def add_curve_point(self, model: Any) -> None:
        """Run the small evaluation and append the result to the learning curve, if there is one."""
        if self.curve_eval is None:
            return
        with self.counter.paused():
            result = self.curve_eval.evaluate(model, self.tokenizer, self.seed)
        measured = {"accuracy": result.accuracy(), "tokens": result.tokens, "entropy": result.entropy}
        self.points.append(self._costs() | measured)

    def _costs(self) -> dict[str, int]:
        return {
            "step": self.step,
            "compute": self.counter.compute,
            "forwarded": self.counter.forwarded,
            "backwarded": self.counter.backwarded,
        }
