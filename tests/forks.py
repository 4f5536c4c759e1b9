"""Runs as forks of one process that has imported everything: real processes, real signals, seconds saved each."""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
# tqdm's own lock is a semaphore that all forks share: one that is killed with it would stop all that come after.
tqdm.set_lock(threading.RLock())
_running: set[int] = set()


@atexit.register
def _end_all() -> None:
    """Leave no fork behind, whatever ended this process."""
    for pid in _running:
        os.kill(pid, signal.SIGKILL)


def fork_ranks(run: Callable[[], None], folder: Path, processes: int = 1) -> list[int]:
    """Fork the processes of one distributed run; each writes its messages to `log_RANK.txt` in the folder.

    Returns:
        Process ids, by rank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            if processes > 1:
                ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ.update(address | ranks)
            _be_rank(run, folder / f"log_{rank}.txt")
        pids.append(pid)
        _running.add(pid)
    return pids


def _be_rank(run: Callable[[], None], log: Path) -> None:
    """Run and exit: a fork must never go on with its parent's work."""
    sys.stdout.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = 1
    try:
        run()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def exit_codes(pids: list[int], limit: float = 600.0) -> list[int]:
    """Exit codes by rank, -9 for a process that was killed, as those are that do not end within `limit` seconds."""
    deadline, codes = time.monotonic() + limit, []
    for pid in pids:
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        _running.discard(pid)
        codes.append(os.waitstatus_to_exitcode(ended[1]))
    return codes


def launch(module: str, *flags: str, limit: float) -> str:
    """What a module of the tests prints, run as a command; whatever it forked ends with it."""
    command = [sys.executable, "-m", module, *flags]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            printed, errors = process.communicate(timeout=limit)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, printed + errors[-3000:]
    return printed


def await_path(path: Path, limit: float = 600.0) -> None:
    """Wait until something has made this file or folder."""
    deadline = time.monotonic() + limit
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is not there after {limit:g} s.")
        time.sleep(0.005)
