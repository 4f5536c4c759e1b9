"""A reward function in a process of its own, which can be killed: a limit holds whatever the function does.

Within its own process nothing can end a function that keeps the interpreter lock, as a slow regular expression does, or
that blocks the event loop.
"""

import logging
import os
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from multiprocess.connection import Connection
from multiprocess.reduction import ForkingPickler

from hpt_trl.verifier.function_worker import (
    BEGUN,
    CALLED,
    FAILED,
    LOGGED,
    READY,
    RETURNED,
    generator_states,
    set_generator_states,
)
from hpt_trl.verifier.processes import start_python

_START_TIMEOUT = 300.0  # seconds to import what the function needs, even on a busy machine


class OutOfTimeError(Exception):
    """A call took longer than its limit."""


class FunctionFailedError(Exception):
    """The function raised, or its process died; the message is the predicate of a sentence about the function."""


class FunctionProcess:
    """Calls a function in a process that starts now, keeps the function's state between calls, and can be killed.

    The function and its arguments are pickled: a function of a module is imported there, others (of a script or a
    notebook, closures, objects) are copied, with the variables that they refer to. What the function changes there,
    nobody else sees, except for the global random generators of Python, NumPy and torch, whose states go there and
    back. Arguments that can be called stay here; a call of one returns None. Log records are handled here.

    Args:
        function: a function, also an asynchronous one, or another callable object.
        name: of the function, for messages.
        seconds: limit on the wall time of one call.
        environment: environment variables of its process; None: those of this process.

    Raises:
        ValueError: if the function cannot be pickled.
    """

    _process: subprocess.Popen
    _channel: Connection
    _is_ready: bool
    _owner: int

    def __init__(
        self, function: Callable[..., Any], name: str, seconds: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self.seconds = seconds
        self._environment = environment
        try:
            self._function = bytes(ForkingPickler.dumps(function, recurse=True))
        # An object may raise anything while it is pickled.
        except Exception as error:
            raise ValueError(
                f"reward_timeout runs each reward function in a process of its own, to which {name!r} cannot be sent "
                f"({type(error).__name__}: {error}). Define it in a module without objects such as sockets, "
                "generators or clients, which it can create on its first call; or set reward_timeout=None."
            ) from error
        self._start()

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """What the function returns; an array, tensor or iterator as a list.

        Raises:
            OutOfTimeError: after `seconds`.
            FunctionFailedError: if the function raises, or its process dies.
        """
        callbacks = {name: value for name, value in arguments.items() if callable(value)}
        batch = _pickled({name: value for name, value in arguments.items() if name not in callbacks}, list(callbacks))
        if self._process.poll() is not None:
            self._start()
        try:
            if not self._is_ready:
                self._until(READY, callbacks, _START_TIMEOUT)
                self._is_ready = True
            self._channel.send_bytes(batch)
            self._until(BEGUN, callbacks, _START_TIMEOUT)
            result, generators = self._until(RETURNED, callbacks, self.seconds)
        except (EOFError, ConnectionError) as error:
            self.close()
            raise FunctionFailedError(
                f"ended its process (exit code {self._process.returncode}; a negative one is the number of a signal)"
            ) from error
        except BaseException:
            # Also after Ctrl-C: the outcome of this call must not be taken for that of the next one.
            self.close()
            raise
        set_generator_states(generators)
        return result

    def close(self) -> None:
        """Kill the process; the next call starts another one."""
        _end(self._process, self._channel, self._owner)

    def process_id(self) -> int | None:
        """Of the process if it is alive."""
        return self._process.pid if self._process.poll() is None else None

    def _start(self) -> None:
        own_end, other_end = socket.socketpair()
        code = f"from hpt_trl.verifier.function_worker import main; main({self.seconds}, {os.getpid()})"
        self._process = start_python(code, other_end, self._environment)
        self._channel = Connection(own_end.detach())
        self._is_ready, self._owner = False, os.getpid()
        weakref.finalize(self, _end, self._process, self._channel, self._owner)
        self._channel.send((_log_levels(), self._function))

    def _until(self, expected: int, callbacks: Mapping[str, Callable[..., Any]], seconds: float) -> Any:
        """Handle messages until one is of the expected kind; its content."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._channel.poll(left):
            kind, content = self._channel.recv()
            if kind == expected:
                return content
            if kind == FAILED:
                predicate, traceback = content
                raise FunctionFailedError(predicate) from FunctionFailedError(f"in its process:\n{traceback}")
            if kind == LOGGED:
                logger = logging.getLogger(content.name)
                if logger.isEnabledFor(content.levelno):
                    logger.handle(content)
            elif kind == CALLED:
                name, args, kwargs = content
                callbacks[name](*args, **kwargs)
        if expected != RETURNED:
            raise FunctionFailedError(f"could not be loaded in its process within {seconds:g} s")
        raise OutOfTimeError


def _log_levels() -> dict[str, int]:
    """Levels of all loggers that have one of their own."""
    loggers = {"": logging.getLogger()} | logging.getLogger().manager.loggerDict
    return {name: each.level for name, each in loggers.items() if isinstance(each, logging.Logger) and each.level}


def _pickled(arguments: dict[str, Any], callbacks: list[str]) -> bytes:
    try:
        return bytes(ForkingPickler.dumps((arguments, callbacks, generator_states())))
    # As above.
    except Exception as error:
        for name, value in arguments.items():
            try:
                ForkingPickler.dumps(value)
            except Exception as cause:
                raise FunctionFailedError(
                    f"cannot get its argument {name!r} in a process of its own, which reward_timeout needs "
                    f"({type(cause).__name__}: {cause})"
                ) from cause
        raise FunctionFailedError(f"cannot get its arguments in a process of its own ({error})") from error


def _end(process: subprocess.Popen, channel: Connection, owner: int) -> None:
    """Kill a process and those that it has started; a fork of its owner leaves it alone."""
    channel.close()
    if owner == os.getpid() and process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
