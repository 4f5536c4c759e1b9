"""Faults and signals that end a run, with the same message on every process and at the same point of the step.

A process that raises alone leaves the others waiting in a collective. A fault is therefore kept until all processes can
learn of it (`first_fault`), and a termination signal takes effect at the end of the step.
"""

import asyncio
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from accelerate import PartialState
from accelerate.logging import get_logger
from accelerate.utils import gather, gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.utils import is_async_callable

from hpt_trl.common.errors import LocalRunError, RunError

logger = get_logger(__name__)

TERMINATED = 143
"""Exit code of a run that saved a checkpoint on SIGTERM: 128 + 15, the code that shells report for that signal."""


INTERRUPTED = 130
"""Exit code of a run that saved a checkpoint on Ctrl-C: 128 + 2, the code that shells report for SIGINT."""

_SAME_INTERRUPT = 1.0  # seconds


def _maximum(number: int) -> int:
    """The largest of the numbers of all processes. Every process must call it."""
    state = PartialState()
    if state.num_processes == 1:
        return number
    return int(gather(torch.tensor([number], device=state.device)).max())


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any process. Every process must call it."""
    return bool(_maximum(int(flag)))


def first_fault(own: str | None) -> str | None:
    """The fault of the first process that has one, on every process. Every process must call it.

    Args:
        own: this process's fault, if it has one.
    """
    if not any_rank(own is not None):
        return None
    return next(fault for fault in gather_object([own]) if fault is not None)


def no_progress(steps: int, norm: float, limit: float | None, step: int) -> str:
    """The message of a run that ends after too many skipped steps.

    Args:
        steps: consecutive steps that were skipped.
        norm: gradient norm of the last one.
        limit: `skip_grad_norm_above`.
        step: optimizer steps done.
    """
    reason = f"is above skip_grad_norm_above ({limit})" if math.isfinite(norm) else "is not finite"
    return (
        f"The gradient norm of {steps} consecutive optimizer steps, up to step {step}, {reason} (the last: {norm:g}). "
        "Training has stopped making progress. Resume from an earlier checkpoint with a lower learning_rate or "
        "sft_weight; if weights or activations overflow, train in bf16 or fp32 instead of fp16. "
        "max_skipped_steps_in_row sets the limit."
    )


class RewardGuard:
    """Calls reward functions, and keeps the first fault until every process can learn of it.

    Args:
        timeout: seconds that one call may take. A function on the main thread cannot be interrupted, so with a limit
            it runs in a thread of its own, which is abandoned when the time is up. None: no limit, and no thread.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._fault: str | None = None
        self._error: Exception | SystemExit | None = None

    def wrap(self, function: Callable, name: str) -> Callable:
        """The same reward function, except that it returns zeros where it fails: see `raise_fault`."""

        @wraps(function)
        async def guarded_async(**batch: Any) -> list:
            rows = len(batch["completions"])
            try:
                return _checked(await _awaited_in_time(function(**_copied(batch)), self.timeout), rows)
            # A user's function may raise anything, and the other processes must learn of it.
            except (Exception, SystemExit) as error:
                return self._keep(name, error, rows)

        @wraps(function)
        def guarded(**batch: Any) -> list:
            rows = len(batch["completions"])
            try:
                return _checked(_in_time(partial(function, **_copied(batch)), self.timeout), rows)
            except (Exception, SystemExit) as error:  # as above
                return self._keep(name, error, rows)

        return guarded_async if is_async_callable(function) else guarded

    def _keep(self, name: str, error: Exception | SystemExit, rows: int) -> list[float]:
        if self._fault is None:
            where = f"process {PartialState().process_index}, {rows} completions"
            self._fault, self._error = (
                f"The reward function {name!r} {_error_message(error, self.timeout)} ({where})",
                error,
            )
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


MAX_REWARD = 1e15
"""Absolute value of a reward; sums of its square over 100 million rollouts fit in float32."""


class _BadRewardsError(Exception):
    """A reward function did not return one finite number or None per completion."""


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


def _error_message(error: Exception | SystemExit, timeout: float | None) -> str:
    """What happened, as the predicate of a sentence."""
    if isinstance(error, _BadRewardsError):
        return str(error)
    if isinstance(error, _OutOfTimeError):
        return f"did not return within reward_timeout ({timeout:g} s)"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} in {frame.filename}, line {frame.lineno}"


class _OutOfTimeError(Exception):
    """A call took longer than its limit."""


async def _awaited_in_time(call: Awaitable[Any], timeout: float | None) -> Any:
    """The result of a call; `_OutOfTimeError` if it takes more than `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout) as limit:
            return await call
    except TimeoutError:
        if limit.expired():
            raise _OutOfTimeError from None
        raise


def _in_time(call: Callable[[], Any], timeout: float | None) -> Any:
    """The result of a call; `_OutOfTimeError` if it takes more than `timeout` seconds."""
    if timeout is None:
        return call()
    outcome: list[tuple[Any, Exception | SystemExit | None]] = []
    device = PartialState().device

    def run() -> None:
        if device.type == "cuda":  # a new thread starts on the first GPU
            torch.cuda.set_device(device)
        try:
            outcome.append((call(), None))
        except (Exception, SystemExit) as error:  # raised in the waiting thread
            outcome.append((None, error))

    # A daemon: the interpreter waits for an executor's threads at exit, and this one may never end.
    thread = threading.Thread(target=run, name="reward", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise _OutOfTimeError
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


class TerminationCallback(TrainerCallback):
    """On SIGTERM or Ctrl-C, saves a checkpoint at the end of the step and stops, on all processes together.

    transformers' `enable_jit_checkpoint` decides on each process by its own clock, in the middle of a step, and exits
    with code 0: processes fall out of step, and a scheduler considers the run finished.
    """

    def __init__(self) -> None:
        self._request = 0  # the exit code that a signal asks for
        self._interrupted_at = -math.inf
        self.exit_code = 0  # of the run, once it has stopped

    @property
    def has_stopped(self) -> bool:
        """Whether the run was stopped before its last step."""
        return self.exit_code != 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while training, except those with another handler and in another thread than the main."""
        self._request = self.exit_code = 0
        self._interrupted_at = -math.inf
        handlers: dict[signal.Signals, tuple[Any, Any]] = {
            signal.SIGTERM: (signal.SIG_DFL, self._terminate),
            signal.SIGINT: (signal.default_int_handler, self._interrupt),
        }
        replaced: dict[signal.Signals, tuple[Any, Any]] = {}
        if threading.current_thread() is threading.main_thread():
            replaced = {number: pair for number, pair in handlers.items() if signal.getsignal(number) is pair[0]}
        for number, (_, handler) in replaced.items():
            signal.signal(number, handler)
        try:
            yield
        finally:
            for number, (before, _) in replaced.items():
                signal.signal(number, before)

    def _terminate(self, number: int, frame: object) -> None:
        # Schedulers and launchers both forward the signal: a further one is the same request.
        self._request = TERMINATED

    def _interrupt(self, number: int, frame: object) -> None:
        """The first Ctrl-C asks for a checkpoint, a second one ends the run at once."""
        since, self._interrupted_at = time.monotonic() - self._interrupted_at, time.monotonic()
        if since < _SAME_INTERRUPT:  # torchrun forwards the signal that the terminal has sent to all processes
            return
        if self._request == INTERRUPTED:
            raise KeyboardInterrupt
        self._request = max(self._request, INTERRUPTED)
        if PartialState().is_main_process:
            print(
                "\nCtrl-C: the run stops with a checkpoint at the end of this step. Press it again to end at once.",
                file=sys.stderr,
                flush=True,
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # The signal may have reached one process only. After the last step there is nothing left to stop.
        request = _maximum(self._request)
        if request and state.global_step < state.max_steps:
            name = "SIGTERM" if request == TERMINATED else "Ctrl-C"
            logger.warning(
                f"{name}: saving a checkpoint at step {state.global_step}, then exiting with code {request}. The same "
                "command with `--resume_from_checkpoint auto` continues the run; in Python, "
                "trainer.train(resume_from_checkpoint='auto')."
            )
            control.should_save = control.should_training_stop = True
            self.exit_code = request

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Where an epoch was cut short, the resumed run does what is due at its end.
        if self.has_stopped and not float(state.epoch or 0).is_integer():
            control.should_log = control.should_evaluate = control.should_save = False


@contextmanager
def explaining_lost_peer() -> Iterator[None]:
    """Explain a failed collective: another process is gone."""
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:
        if not is_lost_connection(error):
            raise
        raise LocalRunError(
            f"Process {PartialState().process_index} lost its connection to the others: another process of this run "
            f"has died or does not respond (see its messages, or the system log if it was killed). Resume from the "
            f"last checkpoint with resume_from_checkpoint=True. The backend reported: {str(error).splitlines()[0]}"
        ) from error


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective failed because another process is gone."""
    if PartialState().num_processes == 1:
        return False
    # gloo raises plain RuntimeErrors with the place in its source; NCCL's have a type.
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)
