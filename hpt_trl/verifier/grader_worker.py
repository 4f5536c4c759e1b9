"""Worker process of the grader: reads pairs of answer and gold from a socket, its standard input; sends verdicts."""

import json
import os
import resource
import signal
import socket

from hpt_trl.verifier.answers.equality import judge
from hpt_trl.verifier.grader import READY, VERDICTS, Verdict


def main(seconds: float, megabytes: int, parent: int) -> None:
    """Grade answers until the parent closes the connection or exits.

    Args:
        seconds: limit on the wall time per verdict. The parent enforces it; in case the parent is dead, an alarm kills
            this process one second later.
        megabytes: limit on the address space of this process.
        parent: process id of the parent.
    """
    channel = socket.socket(fileno=0)
    # A fork of the parent may keep the parent's end open; then only the parent's id shows that the parent has exited.
    channel.settimeout(2.0)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    limit = megabytes * 2**20 if hard_limit == resource.RLIM_INFINITY else min(hard_limit, megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # An alarm without a handler kills the process, even inside a C loop.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # From here on every failure becomes a verdict, so nothing needs to reach the terminal.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    channel.sendall(bytes([READY]))
    received = b""
    while True:
        try:
            data = channel.recv(65536)
        except TimeoutError:
            if os.getppid() != parent:
                return
            continue
        if not data:
            return
        received += data
        if not received.endswith(b"\n"):
            continue
        pairs = json.loads(received)
        received = b""
        for answer, gold in pairs:
            channel.sendall(bytes([VERDICTS.index(_within_limits(answer, gold, seconds + 1))]))


def _within_limits(answer: str, gold: str, seconds: float) -> Verdict:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return judge(answer, gold)
    except MemoryError:
        return Verdict.TIMED_OUT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
