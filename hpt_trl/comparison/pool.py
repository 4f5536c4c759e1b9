"""Tasks side by side, each in a fork of this process: what is imported once is there for all."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """Work for a process of its own, whose messages go to `log.txt` in its folder."""

    name: str
    folder: Path
    run: Callable[[], None]


def run_tasks(tasks: Iterable[Task], processes: int, tell: Callable[[str], None]) -> list[Task]:
    """Run all tasks, so many at a time, in their order.

    A fork inherits no threads, and hangs if it waits for one: call `torch.set_num_threads(1)` before any other of
    torch's functions.

    Args:
        tasks: what to do.
        processes: at most so many at a time.
        tell: called with the name of each task that has ended well.

    Returns:
        Tasks that failed.
    """
    context = multiprocessing.get_context("fork")
    waiting, failed = list(tasks), []
    running: list[tuple[Task, ForkProcess]] = []
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                task = waiting.pop(0)
                process = context.Process(target=_be_child, args=(task, os.getpid()), name=task.name)
                process.start()
                running.append((task, process))
            wait([process.sentinel for _, process in running])
            ended = [(task, process) for task, process in running if process.exitcode is not None]
            running = [pair for pair in running if pair not in ended]
            for task, process in ended:
                if process.exitcode == 0:
                    tell(task.name)
                else:
                    failed.append(task)
    finally:
        for _, process in running:
            process.terminate()
    return failed


def _be_child(task: Task, parent: int) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(task.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # A captured stream of the parent's would swallow the messages.
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    task.run()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed, which could not end it."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)
