"""Faults and signals that end a run, with the same message on every process and at the same point of the step.

A process that raises alone leaves the others waiting in a collective. A fault is therefore kept until all processes can
learn of it (`first_fault`), and a termination signal takes effect at the end of the step.
"""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.logs import get_logger, say

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
        """The first Ctrl-C asks for a checkpoint, a second one ends the run immediately."""
        since, self._interrupted_at = time.monotonic() - self._interrupted_at, time.monotonic()
        if since < _SAME_INTERRUPT:  # torchrun forwards the signal that the terminal has sent to all processes
            return
        if self._request == INTERRUPTED:
            raise KeyboardInterrupt
        self._request = max(self._request, INTERRUPTED)
        if PartialState().is_main_process:
            say(
                "\nCtrl-C: the run saves a checkpoint at the end of this step and stops. Press Ctrl-C again to stop "
                "immediately.",
                is_error=True,
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
