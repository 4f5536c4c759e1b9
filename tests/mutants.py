"""Mutation testing: change one line of the core at a time, and see that a test fails.

    python -m tests.mutants           # all of tests/mutations.py, in copies of the tree
    python -m tests.mutants decision  # those whose file or line holds this text

Each mutation runs in a fork of this process, which has imported torch, transformers and TRL: seconds instead of tens.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
# Of one selection of tests: a mutation may make an endless loop.
LIMIT_SECONDS = 600.0
# Exit codes of pytest.
ALL_PASSED, SOME_FAILED = 0, 1


@dataclass
class Run:
    """One selection of tests in a copy of the tree, mutated or, to begin with, as it is."""

    tests: str
    mutation: Mutation | None = None
    pid: int = 0
    began: float = 0.0
    copy: Path = Path()
    code: int | None = None

    @property
    def outcome(self) -> str:
        """What the exit code means."""
        if self.mutation is None:
            return "passed" if self.code == ALL_PASSED else "FAILED WITHOUT A MUTATION"
        return {ALL_PASSED: "SURVIVED", SOME_FAILED: "killed", -signal.SIGKILL: "killed (time limit)"}.get(
            self.code or 0, f"BROKEN (pytest ended with {self.code})"
        )

    def start(self, copy: Path) -> None:
        """Fork a process that runs the tests in `copy`."""
        self.copy, self.began = copy, time.monotonic()
        if self.mutation is not None:
            mutate(copy, self.mutation)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            run_tests(copy, self.tests)

    def has_ended(self) -> bool:
        """Whether the tests are over; then the copy is as it was."""
        if time.monotonic() - self.began > LIMIT_SECONDS:
            os.kill(self.pid, signal.SIGKILL)
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if ended == 0:
            return False
        self.code = os.waitstatus_to_exitcode(status)
        if self.mutation is not None:
            shutil.copy2(ROOT / self.mutation.file, self.copy / self.mutation.file)
        return True


def mutate(root: Path, mutation: Mutation) -> None:
    """Replace the line of a mutation.

    Raises:
        ValueError: if its text is not in the file exactly once.
    """
    path = root / mutation.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.file} has {text.count(mutation.old)} times, not once: {mutation.old!r}. The code has changed: "
            "change tests/mutations.py with it."
        )
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def run_tests(copy: Path, tests: str) -> None:
    """Be a process that runs a selection of tests on the code in `copy`, and end with pytest's exit code."""
    import pytest

    code = SOME_FAILED
    try:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("hpt_trl", "tests")]:
            del sys.modules[name]
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        # Python takes a file for unchanged that has the size and, in seconds, the time it had.
        sys.dont_write_bytecode = True
        log = os.open(copy / "mutant.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        files, _, expression = tests.partition(" -k ")
        chosen = ["-k", expression] if expression else []
        plain = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}.tmp", f"--rootdir={copy}"]
        code = int(pytest.main([*files.split(), *chosen, *plain]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def copies_of_the_tree(folder: Path, count: int) -> list[Path]:
    """Copies of all files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    copies = [folder / f"copy_{number}" for number in range(count)]
    for name in listed.stdout.splitlines():
        for copy in copies if (ROOT / name).is_file() else []:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copies


def run_all(runs: list[Run], copies: list[Path]) -> Iterator[Run]:
    """Run as many at a time as there are copies; yield each as it ends."""
    waiting, free, running = list(runs), list(copies), []
    try:
        while waiting or running:
            while waiting and free:
                running.append(waiting.pop(0))
                running[-1].start(free.pop())
            for run in [run for run in running if run.has_ended()]:
                running.remove(run)
                free.append(run.copy)
                yield run
            time.sleep(0.02)
    finally:
        for run in running:
            os.kill(run.pid, signal.SIGKILL)


def main() -> int:
    """Run the mutations, print a table, and return 1 if one survives, 2 if the tests fail without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="?", default="", help="only mutations with this text in their file or line")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time (all cores)")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if any(options.text in part for part in (m.file, m.old, m.new))]
    with tempfile.TemporaryDirectory() as folder:
        copies = copies_of_the_tree(Path(folder), options.workers)
        for mutation in chosen:
            mutate(copies[0], mutation)
            shutil.copy2(ROOT / mutation.file, copies[0] / mutation.file)
        import_what_tests_need()
        for run in run_all([Run(tests) for tests in dict.fromkeys(m.tests for m in chosen)], copies):
            if run.code != ALL_PASSED:
                print(f"{run.outcome}: {run.tests}\n{(run.copy / 'mutant.log').read_text()[-4000:]}")
                return 2
        runs = []
        for run in run_all([Run(mutation.tests, mutation) for mutation in chosen], copies):
            runs.append(run)
            print(f"{run.outcome:10} {described(run.mutation)}", flush=True)
    survivors = [run for run in runs if not run.outcome.startswith("killed")]
    print(f"{len(runs) - len(survivors)} of {len(runs)} mutations were killed.")
    return 1 if survivors else 0


def described(mutation: Mutation | None) -> str:
    """A mutation in one line."""
    if mutation is None:
        return ""
    old, new = (" ".join(text.split()) for text in (mutation.old, mutation.new))
    return f"{mutation.file}: {old}  ->  {new or '(nothing)'}"


def import_what_tests_need() -> None:
    """Import what every fork would import; nothing of the package itself, which is mutated."""
    import hypothesis
    import pandas
    import peft
    import pytest
    import torch
    from trl import GRPOTrainer

    assert all((hypothesis, pandas, peft, pytest, GRPOTrainer))
    torch.set_num_threads(1)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": "1"}
    sys.exit(main())
