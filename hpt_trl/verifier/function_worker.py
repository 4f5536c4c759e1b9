"""The process of one reward function: receives the function, then calls it on each batch that it receives.

Everything that the function logs, and its outcome, goes back as messages `(kind, content)`.
"""

import asyncio
import faulthandler
import inspect
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from logging.handlers import QueueHandler
from typing import Any

from multiprocess.connection import Connection
from multiprocess.reduction import ForkingPickler

READY, BEGUN, RETURNED, FAILED, LOGGED, CALLED = range(6)
"""Kinds of messages: ready for batches; the call has begun, returned, failed; a log record; a callback was called."""

_POLL = 2.0  # seconds after which a process whose parent was killed notices it
_GRACE = 10.0  # seconds after its limit, when a call ends the process if the parent has not
# Module of each global generator, with the functions that get and set its state.
_GENERATORS = {
    "random": ("getstate", "setstate"),
    "numpy.random": ("get_state", "set_state"),
    "torch": ("get_rng_state", "set_rng_state"),
}


def raised(error: BaseException) -> str:
    """What was raised and where, as the predicate of a sentence."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} in {frame.filename}, line {frame.lineno}"


def generator_states() -> dict[str, bytes]:
    """Pickled states of the global random generators whose modules are loaded."""
    loaded = {name: getattr(sys.modules[name], get) for name, (get, _) in _GENERATORS.items() if name in sys.modules}
    return {name: bytes(ForkingPickler.dumps(get())) for name, get in loaded.items()}


def set_generator_states(states: dict[str, bytes]) -> None:
    """Set the generators whose modules are loaded here too."""
    for name, state in states.items():
        if name in sys.modules:
            getattr(sys.modules[name], _GENERATORS[name][1])(ForkingPickler.loads(state))


class _Outbox(QueueHandler):
    """Sends messages to the parent, also from the function's own threads; as a logging handler, it sends records."""

    def __init__(self, channel: Connection) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._channel = channel
        self._sending = threading.Lock()

    def send(self, kind: int, content: Any = None) -> None:
        message = ForkingPickler.dumps((kind, content))  # nothing is sent if this fails
        with self._sending:
            self._channel.send_bytes(message)

    def enqueue(self, record: logging.LogRecord) -> None:
        self.send(LOGGED, record)


def main(seconds: float, parent: int) -> None:
    """Call the function on each batch until the parent closes the connection or exits.

    Args:
        seconds: limit on one call, which the parent enforces.
        parent: process id of the parent.
    """
    channel = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the function must not read what is sent
    outbox = _Outbox(channel)
    levels, function = channel.recv()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().addHandler(outbox)
    try:
        function = ForkingPickler.loads(function)
    # Its module may raise anything while it is imported.
    except (Exception, SystemExit) as error:
        outbox.send(FAILED, (f"could not be loaded in its process: it {raised(error)}", traceback.format_exc()))
        return
    outbox.send(READY)
    nowhere = open(os.devnull, "w")  # noqa: SIM115  # as long as the process lives
    with asyncio.Runner() as runner, suppress(EOFError, ConnectionError):
        for batch, callbacks, generators in _received(channel, parent):
            stubs = {name: partial(_call_parent, outbox, name) for name in callbacks}
            set_generator_states(generators)
            # Without the interpreter lock, which the function may keep: it ends a process whose parent was killed.
            faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=nowhere)
            outbox.send(BEGUN)
            outbox.send(*_outcome(partial(function, **batch, **stubs), runner))
            faulthandler.cancel_dump_traceback_later()


def _received(channel: Connection, parent: int) -> Iterator[Any]:
    # A fork of the parent may keep the parent's end open; then only the parent's id shows that the parent has exited.
    while os.getppid() == parent:
        if channel.poll(_POLL):
            yield channel.recv()


def _call_parent(outbox: _Outbox, name: str, *args: Any, **kwargs: Any) -> None:
    outbox.send(CALLED, (name, args, kwargs))


def _outcome(call: Callable[[], Any], runner: asyncio.Runner) -> tuple[int, Any]:
    """The message that says how a call ended."""
    try:
        result = call()
        if inspect.iscoroutine(result):
            result = runner.run(result)
        if hasattr(result, "tolist"):  # of arrays and tensors
            result = result.tolist()
        elif isinstance(result, Iterator):
            result = list(result)
    # A user's function may raise anything.
    except (Exception, SystemExit) as error:
        return FAILED, (raised(error), traceback.format_exc())
    try:
        ForkingPickler.dumps(result)
    except Exception as error:  # so may an object that is pickled
        kind, reason = type(result).__name__, f"{type(error).__name__}: {error}"
        return FAILED, (f"returned a {kind} that cannot be sent from its process ({reason})", traceback.format_exc())
    return RETURNED, (result, generator_states())
