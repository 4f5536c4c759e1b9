"""Runs tasks in parallel, each in a fork of this process, so that modules are imported only once."""

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
    """Work for a separate process, whose output goes to `log.txt` in its folder."""

    name: str
    folder: Path
    run: Callable[[], None]


def run_tasks(tasks: Iterable[Task], processes: int, report_progress: Callable[[str], None]) -> list[Task]:
    """Run all tasks in order, at most `processes` at a time.

    A fork inherits no threads and hangs if it waits for one: call `torch.set_num_threads(1)` before any other torch
    function.

    Args:
        tasks: what to run.
        processes: maximum number of parallel processes.
        report_progress: called with the name of each task that has succeeded.

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
                process = context.Process(target=_child_main, args=(task, os.getpid()), name=task.name)
                process.start()
                running.append((task, process))
            wait([process.sentinel for _, process in running])
            ended = [(task, process) for task, process in running if process.exitcode is not None]
            running = [pair for pair in running if pair not in ended]
            for task, process in ended:
                if process.exitcode == 0:
                    report_progress(task.name)
                else:
                    failed.append(task)
    finally:
        for _, process in running:
            process.terminate()
    return failed


def _child_main(task: Task, parent: int) -> None:
    task.folder.mkdir(parents=True, exist_ok=True)
    log = os.open(task.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # The inherited Python streams may be captured by the parent (pytest), which would swallow the output.
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    task.run()


def _exit_with_parent(parent: int) -> None:
    """Exit when the parent was killed and could not terminate this process."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)
