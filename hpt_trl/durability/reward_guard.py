"""Calls of reward functions whose faults end the run on every process, at the same point of the step."""

import asyncio
import inspect
import math
import os
from collections.abc import Callable, Sequence
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

from accelerate import PartialState
from torch import nn
from trl.trainer.utils import is_async_callable

from hpt_trl.common.errors import RunError
from hpt_trl.common.thinking import OPENS_THINKING
from hpt_trl.durability.faults import first_fault
from hpt_trl.verifier.function_process import FunctionFailedError, FunctionProcess, OutOfTimeError
from hpt_trl.verifier.function_worker import raised

MAX_REWARD = 1e15
"""Absolute value of a reward; sums of its square over 100 million rollouts fit in float32."""


class RewardGuard:
    """Calls reward functions, and keeps the first fault until every process can learn of it.

    Args:
        timeout: seconds that one call may take. With a limit, each function runs in a process of its own, because
            nothing else can end it. None: no limit, and functions are called here.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._fault: str | None = None
        self._error: Exception | SystemExit | None = None

    def wrap(self, function: Callable, name: str) -> Callable:
        """The same reward function, except that it returns zeros where it fails: see `raise_fault`.

        With a limit, its process starts now.

        Raises:
            ValueError: if it has a limit and cannot be sent to a process.
        """
        is_async, takes_thinking = is_async_callable(function), _takes(function, OPENS_THINKING)
        call = function
        if self.timeout is not None:
            in_process = partial(_call_process, FunctionProcess(function, name, self.timeout, _environment()))
            # Asynchronous functions run concurrently.
            call = partial(asyncio.to_thread, in_process) if is_async else in_process

        def arguments(batch: dict[str, Any]) -> dict[str, Any]:
            return {name: each for name, each in _copied(batch).items() if takes_thinking or name != OPENS_THINKING}

        @wraps(function)
        async def guarded_async(**batch: Any) -> list:
            rows = len(batch["completions"])
            try:
                return _checked(await call(**arguments(batch)), rows)
            # A user's function may raise anything, and the other processes must learn of it.
            except (Exception, SystemExit) as error:
                return self._keep(name, error, rows)

        @wraps(function)
        def guarded(**batch: Any) -> list:
            rows = len(batch["completions"])
            try:
                return _checked(call(**arguments(batch)), rows)
            except (Exception, SystemExit) as error:  # as above
                return self._keep(name, error, rows)

        return guarded_async if is_async else guarded

    def _keep(self, name: str, error: Exception | SystemExit, rows: int) -> list[float]:
        if self._fault is None:
            where = f"process {PartialState().process_index}, {rows} completions"
            self._fault = f"The reward function {name!r} {_predicate(error, self.timeout)} ({where})"
            self._error = error
        return [0.0] * rows

    def raise_fault(self, step: int) -> None:
        """Raise RunError on every process if a reward function failed on any. Every process must call it."""
        fault, error = first_fault(self._fault), self._error
        self._fault = self._error = None
        if fault is not None:
            raise RunError(
                f"{fault} at step {step}. Fix it, or return None for completions that it cannot score, and resume from "
                "the last checkpoint with resume_from_checkpoint=True."
            ) from error


def check_reward_arguments(
    dataset: Any, functions: Sequence[Any], names: Sequence[str], has_environments: bool = False
) -> None:
    """Reject data whose columns, which are passed by name, the reward functions do not take, or TRL cannot pass.

    Args:
        dataset: the training data; a stream may not know its columns.
        functions: reward functions and models.
        names: their names.
        has_environments: whether TRL passes environments too.
    """
    columns = getattr(dataset, "column_names", None) or []
    own = {"prompts", "completions", "trainer_state", "log_extra", "log_metric"}
    clashing = own & set(columns)
    if clashing:
        raise ValueError(
            f"The training data has columns {sorted(clashing)}, which are also arguments that every reward function "
            "gets. Rename or remove them."
        )
    own |= {"completion_ids", *(["environments"] if has_environments else [])}
    passed = own | (set(columns) - {"prompt", "completion"})
    for function, name in zip(functions, names) if columns else ():
        if isinstance(function, nn.Module):
            continue
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # a function written in C
            continue
        try:
            signature.bind(**dict.fromkeys(passed))
        except TypeError as error:
            raise ValueError(
                f"The reward function {name!r} cannot be called: {error}. It gets, by name, the columns of the "
                f"training data, here {sorted(columns)}, and {sorted(own)}. Correct its parameters, which should end "
                "with **kwargs, or the columns."
            ) from error


class _BadRewardsError(Exception):
    """A reward function did not return one finite number or None per completion."""


def _takes(function: Callable, name: str) -> bool:
    """Whether a function can be called with an argument of this name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function written in C
        return True
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _copied(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with lists of its own, in case the function changes them: the next one gets the same lists."""
    return {name: list(column) if isinstance(column, list) else column for name, column in batch.items()}


def _checked(rewards: Any, rows: int) -> list:
    """The rewards unchanged, if TRL can use them."""
    if not hasattr(rewards, "__iter__") or isinstance(rewards, (str, dict)):
        raise _BadRewardsError(f"returned a {type(rewards).__name__} instead of a list of {rows} rewards")
    rewards = list(rewards)
    if len(rewards) != rows:
        raise _BadRewardsError(f"returned {len(rewards)} rewards for {rows} completions")
    for row, reward in enumerate(rewards):
        if reward is None:
            continue
        try:
            is_finite = math.isfinite(reward)
        except (TypeError, ValueError):
            is_finite = False
        if not is_finite:
            # TRL would treat NaN as None, and infinity would reach the whole group.
            raise _BadRewardsError(f"returned {reward!r} for completion {row}, which is not a finite number")
        if abs(reward) > MAX_REWARD:
            raise _BadRewardsError(
                f"returned {reward!r} for completion {row}, whose variance does not fit in float32 (limit: "
                f"{MAX_REWARD:g})"
            )
    return rewards


def _predicate(error: Exception | SystemExit, timeout: float | None) -> str:
    """What happened, as the predicate of a sentence."""
    if isinstance(error, (_BadRewardsError, FunctionFailedError)):
        return str(error)
    if isinstance(error, OutOfTimeError):
        return f"did not return within reward_timeout ({timeout:g} s)"
    return raised(error)


def _call_process(process: FunctionProcess, **batch: Any) -> Any:
    # The class of trainer_state would make the process import transformers: 5 s and 400 MB.
    state = {"trainer_state": SimpleNamespace(**vars(batch["trainer_state"]))} if "trainer_state" in batch else {}
    return process.call(batch | state)


def _environment() -> dict[str, str]:
    """Environment variables of a process that must not join the collectives of this run."""
    return {name: value for name, value in os.environ.items() if name not in ("MASTER_ADDR", "MASTER_PORT")}
