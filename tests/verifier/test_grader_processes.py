"""The grader leaves no process behind, however its program starts and ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.verifier.fair_grader import DEADLINE

ROOT = Path(__file__).parents[2]

AT_WORK = """
def at_work(grader, act):
    import threading, time

    def wait():
        while not any(worker.is_ready and worker.jobs for worker in list(grader._workers)):
            time.sleep(0.001)
        act()

    threading.Thread(target=wait, daemon=True).start()
"""
PROGRAMS = {
    "without a main guard": """
        from hpt_trl.verifier.verdicts import judge, shared_grader
        print(*judge([r"\\boxed{1/4}"], ["0.25"]))
        print(*shared_grader().worker_ids())
        """,
    "in daemonic ranks": """
        import multiprocessing
        from hpt_trl.verifier.verdicts import judge, shared_grader

        def rank(queue):
            queue.put((judge([r"\\boxed{1/4}"], ["0.25"])[0], shared_grader().worker_ids()))

        if __name__ == "__main__":
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            ranks = [context.Process(target=rank, args=(queue,), daemon=True) for _ in range(2)]
            [process.start() for process in ranks]
            results = [queue.get(timeout=300) for _ in ranks]
            [process.join(300) for process in ranks]
            print(*{verdict for verdict, _ in results})
            print(*(pid for _, ids in results for pid in ids))
        """,
    "after a fork": """
        import os
        from hpt_trl.verifier.verdicts import judge, shared_grader
        verdict = judge([r"\\boxed{1/4}"], ["0.25"])[0]
        ids = shared_grader().worker_ids()
        child = os.fork()
        if child == 0:
            # the child has a worker of its own
            assert judge([r"\\boxed{2/4}"], ["0.5"]) == ["right"] and shared_grader().worker_ids() != ids
            raise SystemExit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert shared_grader().worker_ids() == ids and judge([r"\\boxed{3/4}"], ["0.75"]) == ["right"]
        print(verdict)
        print(*ids)
        """,
    "killed": """
        import os, signal
        from hpt_trl.verifier.grader import Grader
        grader = Grader(seconds=300.0, workers=2)
        print(*grader.judge([("1/4", "0.25")]), flush=True)
        print(*grader.worker_ids(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    "killed in the middle of a bomb": """
        import os, signal
        from hpt_trl.verifier.grader import Grader
        print(*Grader(seconds=300.0, workers=1).judge([("1/4", "0.25")]), flush=True)
        grader = Grader(seconds=3.0, workers=1)

        def act():
            print(*grader.worker_ids(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        at_work(grader, act)
        grader.judge([("10^{10^{10^{10}}}", "7")])
        """,
    "interrupted": """
        import os, signal
        from hpt_trl.verifier.grader import Grader
        grader = Grader(seconds=3000.0, workers=1)
        ids = []
        grader.judge([("1/4", "0.25")])
        ids += grader.worker_ids()
        at_work(grader, lambda: os.kill(os.getpid(), signal.SIGINT))
        try:
            grader.judge([("10^{10^{10^{10}}}", "7")])
        except KeyboardInterrupt:
            pass
        assert grader.worker_ids() == []  # the busy worker was killed
        print(*grader.judge([("1/2", "0.5")]))
        ids += grader.worker_ids()
        print(*ids)
        """,
}


@pytest.fixture
def folder(tmp_path):
    """A working directory. Processes that are still in it after the test are killed: a busy worker may run for long."""
    yield tmp_path
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(tmp_path.resolve()):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.parametrize("how", PROGRAMS)
def test_no_process_is_left_behind(how, folder):
    program = folder / "program.py"
    program.write_text(AT_WORK + textwrap.dedent(PROGRAMS[how]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == (-signal.SIGKILL if "killed" in how else 0), done.stderr
    verdict, ids = done.stdout.splitlines()
    assert verdict == "right"
    workers = [int(pid) for pid in ids.split()]
    assert workers
    deadline = time.monotonic() + DEADLINE
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))


def test_a_program_from_standard_input_can_judge():
    code = 'from hpt_trl.verifier.verdicts import judge; print(*judge([r"\\boxed{1/4}"], ["0.25"]))'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-"], input=code, env=environment, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.stdout.strip() == "right", done.stderr
