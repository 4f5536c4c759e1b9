"""A worker process of the grader: takes pairs of answer and gold from a socket, its standard input; sends verdicts."""

import json
import os
import resource
import signal
import socket

from hpt_trl.verifier.answers.equality import judge
from hpt_trl.verifier.grader import READY, VERDICTS, Verdict


def main(seconds: float, megabytes: int, parent: int) -> None:
    """Judge until the parent hangs up, or is gone.

    Args:
        seconds: wall time a verdict may take. The parent holds the clock; here an alarm kills this process a second
            later, for a parent that was killed itself.
        megabytes: limit of this process's address space.
        parent: its process id.
    """
    channel = socket.socket(fileno=0)
    # A fork of the parent may hold its end open: then only the parent's id tells that it is gone.
    channel.settimeout(2.0)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = megabytes * 2**20 if most == resource.RLIM_INFINITY else min(most, megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # An alarm without a handler kills, also in the middle of a C loop.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # What goes wrong from here on is a verdict, and no news for the terminal.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    channel.sendall(bytes([READY]))
    received = b""
    while True:
        try:
            news = channel.recv(65536)
        except TimeoutError:
            if os.getppid() != parent:
                return
            continue
        if not news:
            return
        received += news
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
