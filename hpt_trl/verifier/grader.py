"""Verdicts from worker processes that can be killed: whatever a model wrote, a verdict costs bounded time and memory.

sympy cannot be interrupted from within: alarms do not reach it inside C loops, nor any thread but the main one. So it
runs in processes of our own, over which the parent holds a clock. They are started by name, not by `multiprocessing`
(nor by pebble, which is made of it): that imports the user's script again, which breaks scripts without a main guard
and `python -`, and it refuses daemonic processes. Over 300 lines, for starting, watching and replacing a worker share
its state.
"""

import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from multiprocessing.connection import wait
from pathlib import Path

import psutil

import hpt_trl

logger = logging.getLogger(__name__)

Pair = tuple[str, str]
"""Answer and gold answer, both without reasoning around them."""

READY = 250
"""What a worker sends, beside the numbers of its verdicts, when it can take work."""

LONGEST_ANSWER = 10_000
"""Characters; no answer of any benchmark has a tenth of it. Longer ones are not read."""

_START_SECONDS = 120.0  # to import sympy on a machine however busy
_START_ATTEMPTS = 3
_CACHE_SIZE = 65_536
_MOST_WORKERS = 8
_MOST_VERDICTS = 20_000  # of one process: sympy's caches grow
_SHORT_NUMBER = re.compile(r"-?\d{1,9}")


class Verdict(StrEnum):
    """What is known of an answer."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE_ANSWER = "unparseable answer"
    UNPARSEABLE_GOLD = "unparseable gold"
    TIMED_OUT = "timed out"
    """Took more time or memory than allowed, or lost its worker twice."""


VERDICTS = tuple(Verdict)


@dataclass
class _Job:
    pair: Pair
    spent: float = 0.0  # seconds, in workers that died over it
    attempts: int = 0


@dataclass
class _Worker:
    process: subprocess.Popen
    channel: socket.socket
    is_ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)  # the first is being judged
    started: float = 0.0  # when the first was begun, or the process was started
    judged: int = 0

    def end(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Grader:
    """A pool of worker processes that judge answers, started when first needed and kept until the parent ends.

    Safe to call from any thread (batches take turns), after a fork, and in daemonic processes.

    Args:
        seconds: wall time a verdict may take.
        megabytes: address space a worker may take.
        workers: most processes at once; None: this process's share of the cores, at most 8.

    `longest` is the longest wall time in seconds that a verdict has taken.
    """

    def __init__(self, seconds: float = 5.0, megabytes: int = 1024, workers: int | None = None):
        if seconds <= 0 or megabytes < 256 or (workers is not None and workers < 1):
            raise ValueError(
                "A Grader needs seconds above 0, megabytes of at least 256 (sympy alone takes 100) and at least one "
                f"worker; got {seconds}, {megabytes} and {workers}."
            )
        self.seconds = seconds
        self.megabytes = megabytes
        self.workers = workers or _share_of_cores()
        self.longest = 0.0
        self._cache: OrderedDict[Pair, Verdict] = OrderedDict()
        self._forget_workers()

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """One verdict for each pair of answer and gold; equal pairs are judged once.

        Raises:
            RuntimeError: if workers cannot be started at all.
        """
        if self._owner != os.getpid():
            self._forget_workers()  # a fork: the workers, and perhaps a held lock, are the parent's
        pairs = [(answer, gold) for answer, gold in pairs]
        with self._lock:
            found: dict[Pair, Verdict] = {}
            unknown: dict[Pair, None] = {}
            for pair in pairs:
                verdict = self._at_once(pair)
                if verdict is None:
                    unknown[pair] = None
                else:
                    found[pair] = verdict
            if unknown:
                found |= self._judge_by_workers(deque(_Job(pair) for pair in unknown))
            return [found[pair] for pair in pairs]

    def close(self) -> None:
        """End the workers; the next batch starts new ones."""
        _end_all(self._workers, self._owner)

    def worker_ids(self) -> list[int]:
        """Process ids of the workers that live now."""
        return [worker.process.pid for worker in list(self._workers) if worker.process.poll() is None]

    def _forget_workers(self) -> None:
        for worker in getattr(self, "_workers", []):
            worker.channel.close()
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        weakref.finalize(self, _end_all, self._workers, self._owner)

    def _at_once(self, pair: Pair) -> Verdict | None:
        answer, gold = pair
        if _SHORT_NUMBER.fullmatch(answer) and _SHORT_NUMBER.fullmatch(gold):
            return Verdict.RIGHT if int(answer) == int(gold) else Verdict.WRONG
        if len(gold) > LONGEST_ANSWER:
            return Verdict.UNPARSEABLE_GOLD
        if len(answer) > LONGEST_ANSWER:
            return Verdict.UNPARSEABLE_ANSWER
        if pair in self._cache:
            self._cache.move_to_end(pair)
        return self._cache.get(pair)

    def _judge_by_workers(self, waiting: deque[_Job]) -> dict[Pair, Verdict]:
        total = len(waiting)
        # Small enough that no worker idles at the end, large enough that pipes cost nothing.
        chunk = max(1, min(16, math.ceil(total / (4 * self.workers))))
        found: dict[Pair, Verdict] = {}
        failed_starts = 0
        try:
            while len(found) < total:
                self._hand_out(waiting, chunk)
                for worker in self._until_news():
                    if self._receive(worker, found):
                        continue
                    if not worker.is_ready:
                        failed_starts += 1
                    self._bury(worker, waiting, found)
                if failed_starts >= _START_ATTEMPTS:
                    raise RuntimeError(
                        f"{failed_starts} grading workers ended before they could work; their error stands above. "
                        f"They run {sys.executable!r}: check that it imports math_verify."
                    )
        finally:
            # After an interrupt: whoever is in the middle of something must not answer into the next batch.
            for worker in [worker for worker in self._workers if worker.jobs]:
                self._end(worker)
        self._remember(found)
        self._warn(found)
        return found

    def _hand_out(self, waiting: deque[_Job], chunk: int) -> None:
        for worker in [each for each in self._workers if each.is_ready and not each.jobs]:
            if worker.process.poll() is not None or worker.judged > _MOST_VERDICTS or self._is_fat(worker):
                self._end(worker)
        wanted = min(self.workers, sum(bool(each.jobs) for each in self._workers) + math.ceil(len(waiting) / chunk))
        while len(self._workers) < wanted:
            self._workers.append(_start_worker(self.seconds, self.megabytes))
        for worker in self._workers:
            if not waiting or not worker.is_ready or worker.jobs:
                continue
            jobs = [waiting.popleft() for _ in range(min(chunk, len(waiting)))]
            worker.jobs.extend(jobs)
            worker.started = time.monotonic()
            message = json.dumps([job.pair for job in jobs]).encode() + b"\n"
            try:
                worker.channel.sendall(message)
            except OSError:  # it died, or takes nothing: what it was given is found when it is buried
                worker.channel.close()

    def _is_fat(self, worker: _Worker) -> bool:
        """Whether what a worker has judged has swollen it."""
        try:
            return psutil.Process(worker.process.pid).memory_info().rss > self.megabytes * 2**20 / 3
        except psutil.NoSuchProcess:
            return True

    def _deadline(self, worker: _Worker) -> float:
        if not worker.is_ready:
            return worker.started + _START_SECONDS
        return worker.started + self.seconds - worker.jobs[0].spent

    def _until_news(self) -> list[_Worker]:
        """Workers that said something, died, or have used up their time; waits for the first of them."""
        closed = [worker for worker in self._workers if worker.channel.fileno() < 0]
        active = [worker for worker in self._workers if worker.jobs or not worker.is_ready]
        if closed:
            return closed
        soonest = min(self._deadline(worker) for worker in active)
        heard = wait([worker.channel for worker in active], max(0.0, soonest - time.monotonic()))
        now = time.monotonic()
        return [worker for worker in active if worker.channel in heard or self._deadline(worker) <= now]

    def _receive(self, worker: _Worker, found: dict[Pair, Verdict]) -> bool:
        """Take in what a worker sent; False if it is dead or out of time."""
        if worker.channel.fileno() < 0 or not wait([worker.channel], 0):
            return False
        try:
            codes = worker.channel.recv(4096)
        except ConnectionError:
            return False
        for code in codes:
            if code == READY:
                worker.is_ready = True
            else:
                job = worker.jobs.popleft()
                self.longest = max(self.longest, job.spent + time.monotonic() - worker.started)
                found[job.pair] = VERDICTS[code]
                worker.judged += 1
                worker.started = time.monotonic()
        return bool(codes)

    def _bury(self, worker: _Worker, waiting: deque[_Job], found: dict[Pair, Verdict]) -> None:
        """Remove a worker that is dead or out of time; what it had not begun waits again."""
        used = time.monotonic() - worker.started
        was_late = bool(worker.jobs) and self._deadline(worker) <= time.monotonic()
        self._end(worker)
        if worker.jobs:
            job = worker.jobs[0]
            job.spent += used
            job.attempts += 1
            self.longest = max(self.longest, job.spent)
            # The worker's own alarm rings where this process was held up.
            if was_late or worker.process.returncode == -signal.SIGALRM or job.attempts == 2:
                found[job.pair] = Verdict.TIMED_OUT
                worker.jobs.popleft()
        waiting.extendleft(reversed(worker.jobs))
        worker.jobs.clear()

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._workers.remove(worker)

    def _remember(self, found: dict[Pair, Verdict]) -> None:
        self._cache.update(found)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)

    def _warn(self, found: dict[Pair, Verdict]) -> None:
        late = [pair for pair, verdict in found.items() if verdict is Verdict.TIMED_OUT]
        if late:
            logger.warning(
                "%d of %d verdicts needed more than %g s or %d MB and count as not right. The first answer was %.200r.",
                len(late), len(found), self.seconds, self.megabytes, late[0][0],
            )  # fmt: skip


def _share_of_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Set by every launcher that starts several ranks on one machine.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, cores // ranks))


def _start_worker(seconds: float, megabytes: int) -> _Worker:
    ours, theirs = socket.socketpair()
    ours.settimeout(seconds)
    # The worker finds what this process finds, wherever it was started.
    search_path = [str(Path(hpt_trl.__file__).parents[1]), *(entry or os.getcwd() for entry in sys.path)]
    command = f"from hpt_trl.verifier.grader_worker import main; main({seconds}, {megabytes}, {os.getpid()})"
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", command],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
            start_new_session=True,  # Ctrl-C is the parent's
        )
    return _Worker(process, ours, started=time.monotonic())


def _end_all(workers: list[_Worker], owner: int) -> None:
    if owner == os.getpid():
        while workers:
            workers.pop().end()
