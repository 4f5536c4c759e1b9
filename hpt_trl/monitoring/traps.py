"""Warnings about runs that train without an error and learn nothing of what they should."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpt_trl.common.logs import get_logger

logger = get_logger(__name__)

_HARDLY_SOLVED = 0.05
_MIN_STEPS = 10
_MIN_ENTRIES = 3  # some metrics describe only the last step before an entry

Metrics = Mapping[str, float]


def _mean_rewards(logs: Metrics) -> Metrics:
    """Mean of each reward function, by the name of its metric; NaN where every reward was None."""
    return {name: value for name, value in logs.items() if name.startswith("rewards/") and name.endswith("/mean")}


def _nothing_scored(logs: Metrics, args: Any) -> str | None:
    means = _mean_rewards(logs)
    if not means or not all(map(math.isnan, means.values())):
        return None
    return (
        "every reward was None. Check that the reward functions can read the completions and the 'solution' column; "
        "hpt_trl.rewards.judge shows single verdicts."
    )


def _partial_credit(logs: Metrics, args: Any) -> str | None:
    means = _mean_rewards(logs)
    gate_reward = getattr(args, "gate_reward", None) or "accuracy_reward"
    mean = next(iter(means.values())) if len(means) == 1 else means.get(f"rewards/{gate_reward}/mean", 0.0)
    uses_demonstrations = logs.get("hpt/demonstration_share", 0.0) > 0
    if logs.get("hpt/solve_rate") != 0 or not mean > 0 or not uses_demonstrations:
        return None
    return (
        f"no reward reached gate_success_value ({args.gate_success_value:g}), although their mean is {mean:.3g}. The "
        "gate counts rollouts with partial credit as unsolved, so prompts with a demonstration train on it alone "
        "(SFT). Lower gate_success_value to the reward of a solved rollout."
    )


def _no_gradient(logs: Metrics, args: Any) -> str | None:
    if logs.get("grad_norm") != 0:
        return None
    fault = "the gradient was zero: the rollouts of each prompt got equal rewards, and no demonstration was used."
    if logs.get("hpt/none_solved", 0.0) > 0 and logs.get("demonstrations/missing", 0.0) > 0:
        return (
            f"{fault} Prompts that no rollout solves need demonstrations: add them (`hpt-trl demonstrate` samples "
            "some), or begin with an SFT warm-up on those that there are (algorithm='warmup_hpt')."
        )
    return f"{fault} Check the reward functions, use prompts that the policy solves sometimes, or raise gate_threshold."


def _broken_by_warmup(logs: Metrics, args: Any) -> str | None:
    if logs.get("hpt/warmup") != 0 or not logs.get("hpt/solve_rate", 1.0) < _HARDLY_SOLVED:
        return None
    return (
        f"fewer than {_HARDLY_SOLVED:.0%} of the rollouts after the SFT warm-up solved their prompt. If the model "
        "solved more before, the demonstrations are in a notation or manner that it cannot use. Train without the "
        "warm-up (sft_warmup_steps=0): the gate then uses a demonstration only where no rollout succeeds."
    )


class TrapWarnings(TrainerCallback):
    """Warns once of each trap that a run has been in for at least ten steps."""

    _TRAPS: tuple[Callable[[Metrics, Any], str | None], ...] = (
        _nothing_scored,
        _partial_credit,
        _no_gradient,
        _broken_by_warmup,
    )

    def __init__(self) -> None:
        self._since: dict[Any, int] = {}
        self._entries: dict[Any, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._since = dict.fromkeys(self._TRAPS, state.global_step)
        self._entries = dict.fromkeys(self._TRAPS, 0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        # TRL logs a mean of nothing as None.
        known = {name: math.nan if value is None else value for name, value in logs.items()}
        for trap in list(self._since):
            problem = trap(known, args)
            if problem is None:
                self._since[trap], self._entries[trap] = state.global_step, 0
                continue
            self._entries[trap] += 1
            steps = state.global_step - self._since[trap]
            if steps >= _MIN_STEPS and self._entries[trap] >= _MIN_ENTRIES:
                logger.warning(f"For {steps} steps, up to step {state.global_step}, {problem}")
                del self._since[trap]
