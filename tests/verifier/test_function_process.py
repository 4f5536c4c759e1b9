"""A function in a process of its own: its limit holds whatever it does, and otherwise nothing is different."""

import logging
import os
import random
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from hpt_trl.verifier.function_process import FunctionFailedError, FunctionProcess, OutOfTimeError
from tests.verifier import functions
from tests.verifier.fair_grader import DEADLINE

PATIENT = 300.0  # a limit that no function here reaches


def process_of(function, seconds=PATIENT):
    return FunctionProcess(function, "mine", seconds)


@pytest.mark.parametrize("name", ["keeps_the_interpreter_lock", "blocks_the_event_loop", "logs_forever"])
def test_a_limit_holds_and_the_process_ends(name):
    process = process_of(getattr(functions, name), 0.5)
    pid = process.process_id()
    with pytest.raises(OutOfTimeError):
        process.call({"log_extra": lambda *args: None})
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("name", "predicate"),
    [
        ("raises", r"^raised KeyError: 'solution' in .*functions\.py, line \d+$"),
        ("exits", r"^raised SystemExit: enough in .*functions\.py, line \d+$"),
        ("dies", r"^ended its process \(exit code 7;"),
        ("returns_a_generator", r"^returned a list that cannot be sent from its process \(TypeError: .*generator"),
    ],
)
def test_a_failure_is_said_as_the_predicate_of_a_sentence(name, predicate):
    with pytest.raises(FunctionFailedError, match=predicate):
        process_of(getattr(functions, name)).call({})


def test_the_traceback_of_the_process_is_the_cause():
    with pytest.raises(FunctionFailedError) as caught:
        process_of(functions.raises).call({})
    assert 'raise KeyError("solution")' in str(caught.value.__cause__)


def test_asynchronous_functions_and_generators_return_lists():
    assert process_of(functions.returns_later).call({"completions": ["a", "bc"]}) == [1.0, 2.0]
    assert process_of(functions.yields).call({"completions": ["a", "bc"]}) == [1.0, 1.0]


def test_callbacks_are_called_and_records_handled_here(caplog):
    noted = []
    arguments = {
        "completions": ["a", "\ud800"],
        "trainer_state": SimpleNamespace(global_step=5),
        "log_extra": lambda column, values: noted.append((column, values)),
        "log_metric": lambda name, value: noted.append((name, value)),
    }
    with caplog.at_level("INFO", logger="tests.functions"):
        assert process_of(functions.reports).call(arguments) == [0.0, 0.0]
    assert noted == [("length", 5), ("note", ["a", "\ud800"])]
    assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
        ("tests.functions", logging.INFO, "level info")
    ]


def test_state_is_kept_between_calls_and_lost_with_the_process():
    process = process_of(functions.counts)
    assert [process.call({}) for _ in range(3)] == [[1], [2], [3]]
    assert functions.calls == 0
    process.close()
    assert process.call({}) == [1]


def test_global_generators_go_there_and_come_back():
    process = process_of(functions.draws)
    random.seed(0)
    there = [process.call({}), functions.draws(), process.call({})]
    random.seed(0)
    assert there == [functions.draws() for _ in range(3)]


def test_what_is_not_of_a_module_is_copied():
    factor = 3

    class Scale:
        def __call__(self, completions, **kwargs):
            return [factor * len(text) for text in completions]

    assert process_of(Scale()).call({"completions": ["ab"]}) == [6]
    assert process_of(lambda completions: [factor] * len(completions)).call({"completions": ["ab"]}) == [3]


def test_what_cannot_be_sent_is_named():
    rows = functions.yields(["a"])
    with pytest.raises(ValueError, match=r"'mine' cannot be sent .*generator.* Define it in a module"):
        process_of(lambda **kwargs: rows)
    with pytest.raises(FunctionFailedError, match=r"cannot get its argument 'environments' .*generator"):
        process_of(functions.draws).call({"solution": ["1"], "environments": [rows]})


def test_a_module_that_its_process_cannot_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "passing.py").write_text("def mine(**kwargs): return []\n")
    monkeypatch.syspath_prepend(tmp_path)
    import passing

    (tmp_path / "passing.py").write_text("raise OSError('gone')\n")
    with pytest.raises(FunctionFailedError, match=r"^could not be loaded in its process: it raised OSError: gone in "):
        process_of(passing.mine).call({})


def test_its_environment_and_process_are_its_own():
    process = FunctionProcess(functions.environment, "mine", PATIENT, os.environ | {"LOCAL_RANK": "1"})
    address, rank, pid = process.call({})
    assert (address, rank) == (os.environ.get("MASTER_ADDR"), "1")
    assert pid == process.process_id() != os.getpid()


PROGRAM = """
import os, re, signal
from hpt_trl.verifier.function_process import FunctionProcess

def mine(word, log, **kwargs):
    log(os.getpid())
    if word == "hang":
        re.match("(a+)+$", "a" * 40 + "b")
    return [word]

process = FunctionProcess(mine, "mine", 1.0 if {killed} else 300.0)
print(*process.call({{"word": "right", "log": lambda pid: None}}), flush=True)
if {killed}:
    def log(pid):
        print(pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    process.call({{"word": "hang", "log": log}})
print(process.process_id())
"""


@pytest.mark.parametrize("killed", [False, True])
def test_no_process_is_left_behind_by_a_script_without_a_main_guard(tmp_path, killed):
    """A killed script leaves a function that keeps the interpreter lock; it ends 10 s after its limit."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(killed=killed))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=DEADLINE)
    word, pid = done.stdout.split()
    assert word == "right", done.stderr
    deadline = time.monotonic() + DEADLINE
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid))
