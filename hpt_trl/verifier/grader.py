"""A pool of killable worker processes that grade answers: each verdict takes bounded time and memory.

sympy cannot be interrupted from within its process: an alarm does not interrupt a C loop, and reaches only the main
thread. sympy therefore runs in worker processes, and the parent enforces the time limit.
"""

import json
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

import psutil

from hpt_trl.common.logs import plain_logger
from hpt_trl.verifier.processes import start_python

logger = plain_logger(__name__)

Pair = tuple[str, str]
"""Answer and gold answer, both without surrounding reasoning."""

READY = 250
"""Byte that a worker sends when it is ready for work; all other bytes are indices into `VERDICTS`."""

MAX_ANSWER_LENGTH = 10_000
"""In characters. No benchmark has an answer a tenth as long. Longer answers are not parsed."""

_START_TIMEOUT = 120.0  # seconds to import sympy, even on a busy machine
_MAX_FAILED_STARTS = 3
_CACHE_SIZE = 65_536
_MAX_WORKERS = 8
_MAX_VERDICTS_PER_WORKER = 20_000  # sympy's caches grow without bound
_SHORT_NUMBER = re.compile(r"-?\d{1,9}")


class Verdict(StrEnum):
    """Outcome of grading one answer."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSEABLE_ANSWER = "unparseable answer"
    UNPARSEABLE_GOLD = "unparseable gold"
    TIMED_OUT = "timed out"
    """Exceeded the limit on time or memory, or crashed two workers."""


VERDICTS = tuple(Verdict)


@dataclass
class _Job:
    pair: Pair
    seconds_spent: float = 0.0  # in workers that died while grading it
    attempts: int = 0


@dataclass
class _Worker:
    process: subprocess.Popen
    channel: socket.socket
    is_ready: bool = False
    jobs: deque[_Job] = field(default_factory=deque)  # the first is being graded
    started: float = 0.0  # start time of the first job, or of the process while it is not ready
    graded: int = 0

    def kill(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Grader:
    """A pool of worker processes that grade answers. Workers start on first use and live until the parent exits.

    Safe to call from any thread (batches are graded one after the other), after a fork, and in daemonic processes.

    Args:
        seconds: limit on the wall time per verdict.
        megabytes: limit on the address space of each worker.
        workers: maximum number of processes. None uses this process's share of the cores, at most 8.

    `longest_seconds` is the longest wall time of any verdict so far.
    """

    def __init__(self, seconds: float = 5.0, megabytes: int = 1024, workers: int | None = None):
        if seconds <= 0 or megabytes < 256 or (workers is not None and workers < 1):
            raise ValueError(
                "A Grader needs seconds above 0, megabytes of at least 256 (sympy alone takes 100) and at least one "
                f"worker, got seconds={seconds}, megabytes={megabytes}, workers={workers}."
            )
        self.seconds = seconds
        self.megabytes = megabytes
        self.workers = workers or _share_of_cores()
        self.longest_seconds = 0.0
        self._cache: OrderedDict[Pair, Verdict] = OrderedDict()
        self._reset_after_fork()

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Return one verdict for each pair of answer and gold; equal pairs are graded once.

        Raises:
            RuntimeError: if workers cannot be started.
        """
        if self._owner != os.getpid():
            self._reset_after_fork()  # the workers, and possibly a held lock, belong to the parent
        pairs = [(answer, gold) for answer, gold in pairs]
        with self._lock:
            verdicts: dict[Pair, Verdict] = {}
            pending: dict[Pair, None] = {}
            for pair in pairs:
                verdict = self._cached_or_trivial(pair)
                if verdict is None:
                    pending[pair] = None
                else:
                    verdicts[pair] = verdict
            if pending:
                verdicts |= self._grade_in_workers(deque(_Job(pair) for pair in pending))
            return [verdicts[pair] for pair in pairs]

    def close(self) -> None:
        """Kill the workers; the next batch starts new ones."""
        _kill_all(self._workers, self._owner)

    def worker_ids(self) -> list[int]:
        """Process ids of the workers that are alive."""
        return [worker.process.pid for worker in list(self._workers) if worker.process.poll() is None]

    def _reset_after_fork(self) -> None:
        for worker in getattr(self, "_workers", []):
            worker.channel.close()
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        weakref.finalize(self, _kill_all, self._workers, self._owner)

    def _cached_or_trivial(self, pair: Pair) -> Verdict | None:
        answer, gold = pair
        if _SHORT_NUMBER.fullmatch(answer) and _SHORT_NUMBER.fullmatch(gold):
            return Verdict.RIGHT if int(answer) == int(gold) else Verdict.WRONG
        if len(gold) > MAX_ANSWER_LENGTH:
            return Verdict.UNPARSEABLE_GOLD
        if len(answer) > MAX_ANSWER_LENGTH:
            return Verdict.UNPARSEABLE_ANSWER
        if pair in self._cache:
            self._cache.move_to_end(pair)
        return self._cache.get(pair)

    def _grade_in_workers(self, queue: deque[_Job]) -> dict[Pair, Verdict]:
        total = len(queue)
        # Small enough that no worker idles at the end, large enough that the cost of communication is negligible.
        chunk = max(1, min(16, math.ceil(total / (4 * self.workers))))
        verdicts: dict[Pair, Verdict] = {}
        failed_starts = 0
        try:
            while len(verdicts) < total:
                self._dispatch(queue, chunk)
                for worker in self._wait_for_events():
                    if self._receive(worker, verdicts):
                        continue
                    if not worker.is_ready:
                        failed_starts += 1
                    self._reap(worker, queue, verdicts)
                if failed_starts >= _MAX_FAILED_STARTS:
                    raise RuntimeError(
                        f"{failed_starts} grading workers exited during start-up; see their error above. "
                        f"They run {sys.executable!r}: check that it imports math_verify."
                    )
        finally:
            # After an interrupt, a busy worker would send its verdict into the next batch.
            for worker in [worker for worker in self._workers if worker.jobs]:
                self._remove(worker)
        self._add_to_cache(verdicts)
        self._warn_about_timeouts(verdicts)
        return verdicts

    def _dispatch(self, queue: deque[_Job], chunk: int) -> None:
        """Remove worn-out workers, start as many as the queue needs, and send a chunk of jobs to each idle one."""
        for worker in [worker for worker in self._workers if worker.is_ready and not worker.jobs]:
            is_dead = worker.process.poll() is not None
            if is_dead or worker.graded > _MAX_VERDICTS_PER_WORKER or self._exceeds_memory(worker):
                self._remove(worker)
        busy = sum(bool(worker.jobs) for worker in self._workers)
        needed = min(self.workers, busy + math.ceil(len(queue) / chunk))
        while len(self._workers) < needed:
            self._workers.append(_start_worker(self.seconds, self.megabytes))
        for worker in self._workers:
            if not queue or not worker.is_ready or worker.jobs:
                continue
            jobs = [queue.popleft() for _ in range(min(chunk, len(queue)))]
            worker.jobs.extend(jobs)
            worker.started = time.monotonic()
            message = json.dumps([job.pair for job in jobs]).encode() + b"\n"
            try:
                worker.channel.sendall(message)
            except OSError:  # it died or is stuck: `_reap` puts its jobs back into the queue
                worker.channel.close()

    def _exceeds_memory(self, worker: _Worker) -> bool:
        """Whether a worker has grown to more than a third of its limit."""
        try:
            return psutil.Process(worker.process.pid).memory_info().rss > self.megabytes * 2**20 / 3
        except psutil.NoSuchProcess:
            return True

    def _deadline(self, worker: _Worker) -> float:
        if not worker.is_ready:
            return worker.started + _START_TIMEOUT
        return worker.started + self.seconds - worker.jobs[0].seconds_spent

    def _wait_for_events(self) -> list[_Worker]:
        """Block until some workers have sent something, died or run out of time; return them."""
        closed = [worker for worker in self._workers if worker.channel.fileno() < 0]
        active = [worker for worker in self._workers if worker.jobs or not worker.is_ready]
        if closed:
            return closed
        next_deadline = min(self._deadline(worker) for worker in active)
        readable = wait([worker.channel for worker in active], max(0.0, next_deadline - time.monotonic()))
        now = time.monotonic()
        return [worker for worker in active if worker.channel in readable or self._deadline(worker) <= now]

    def _receive(self, worker: _Worker, verdicts: dict[Pair, Verdict]) -> bool:
        """Read what a worker has sent; False if it is dead or out of time."""
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
                seconds = job.seconds_spent + time.monotonic() - worker.started
                self.longest_seconds = max(self.longest_seconds, seconds)
                verdicts[job.pair] = VERDICTS[code]
                worker.graded += 1
                worker.started = time.monotonic()
        return bool(codes)

    def _reap(self, worker: _Worker, queue: deque[_Job], verdicts: dict[Pair, Verdict]) -> None:
        """Remove a worker that is dead or out of time, and put its unfinished jobs back into the queue."""
        elapsed = time.monotonic() - worker.started
        is_overdue = bool(worker.jobs) and self._deadline(worker) <= time.monotonic()
        self._remove(worker)
        if worker.jobs:
            job = worker.jobs[0]
            job.seconds_spent += elapsed
            job.attempts += 1
            self.longest_seconds = max(self.longest_seconds, job.seconds_spent)
            # The worker's own alarm goes off first if this process was suspended.
            if is_overdue or worker.process.returncode == -signal.SIGALRM or job.attempts == 2:
                verdicts[job.pair] = Verdict.TIMED_OUT
                worker.jobs.popleft()
        queue.extendleft(reversed(worker.jobs))
        worker.jobs.clear()

    def _remove(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)

    def _add_to_cache(self, verdicts: dict[Pair, Verdict]) -> None:
        self._cache.update(verdicts)
        while len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)

    def _warn_about_timeouts(self, verdicts: dict[Pair, Verdict]) -> None:
        timed_out = [pair for pair, verdict in verdicts.items() if verdict is Verdict.TIMED_OUT]
        if timed_out:
            logger.warning(
                "%d of %d verdicts needed more than %g s or %d MB and count as wrong. The first such answer is %.200r.",
                len(timed_out), len(verdicts), self.seconds, self.megabytes, timed_out[0][0],
            )  # fmt: skip


def _share_of_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Every launcher that starts several ranks on one machine sets it.
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MAX_WORKERS, cores // ranks))


def _start_worker(seconds: float, megabytes: int) -> _Worker:
    parent_end, worker_end = socket.socketpair()
    parent_end.settimeout(seconds)
    code = f"from hpt_trl.verifier.grader_worker import main; main({seconds}, {megabytes}, {os.getpid()})"
    process = start_python(code, worker_end, is_silent=True)
    return _Worker(process, parent_end, started=time.monotonic())


def _kill_all(workers: list[_Worker], owner: int) -> None:
    if owner == os.getpid():
        while workers:
            workers.pop().kill()
