"""Grades thousands of hostile and random completions; measures time and memory, and checks for leftover processes.

    python -m tests.verifier.measure_grader.stress --completions 10000 --output notebooks/results/grader/stress.json

This takes about ten minutes on two cores, mostly spent on the 1% of completions that run into the limit of 5 s.
"""

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from hpt_trl.verifier.grader import Grader
from hpt_trl.verifier.verdicts import judge

TOKENS = [
    r"\frac", r"\sqrt", r"\sum", r"\int", r"\prod", r"\lim", r"\log", r"\sin", r"\left(", r"\right)", r"\{", r"\}",
    "{", "}", "(", ")", "[", "]", "^", "_", "+", "-", "*", "/", "=", "<", ">", ",", ";", ":", "|", "!", "%", "$",
    "&", r"\\", "x", "y", "z", "n", "i", "e", r"\pi", r"\infty", r"\cup", r"\in", r"\text{and}", r"\begin{pmatrix}",
    r"\end{pmatrix}", r"\pm", "0", "1", "2", "3", "7", "10", "0.5", "1e9", r"\boxed{", "</think>", "<think>",
    r"\cdot", r"\times", r"\mathbb{R}",
]  # fmt: skip
GOLDS = [
    "7",
    r"\frac{1}{2}",
    "(1,2)",
    r"\{1,2\}",
    "[0,1)",
    "x^2+1",
    r"2\sqrt{3}",
    r"12\text{ cm}",
    "C",
    r"50\%",
    "y=2x+1",
]


def bomb(generator: random.Random) -> str:
    """An answer that would take unlimited time or memory; all are distinct."""
    number = generator.randrange(10**6)
    return generator.choice(
        [
            rf"10^{{10^{{10^{{10}}}}}}+{number}", rf"2^{{2^{{2^{{2^{{2^{{2}}}}}}}}}}-{number}",
            rf"(10^{{9}}+{number})!", rf"\prod_{{k=1}}^{{{10**9 + number}}} k",
            rf"\sum_{{k=1}}^{{10^{{12}}}} \frac{{1}}{{k^{{{number}}}}}",
            "x^{" * 60 + str(number) + "}" * 60, rf"\int_0^{{{number}}} e^{{-x^{{x^{{x}}}}}} dx",
        ]
    )  # fmt: skip


def nuisance(generator: random.Random) -> str:
    """An answer that is large, deeply nested, malformed or not mathematics."""
    number, depth = generator.randrange(10**6), generator.randrange(1, 1000)
    return generator.choice(
        [
            r"\frac{1}{" * depth + str(number) + "}" * depth, "(" * depth + str(number) + ")" * depth,
            "9" * generator.randrange(1, 9000), "+".join(["1"] * depth), r"\boxed{" * depth,
            "".join(chr(generator.randrange(0x20, 0xD000)) for _ in range(generator.randrange(1, 200))),
            f"__import__('os').system('exit {number}')", "\x00" * depth, r"\text{" * depth, "-" * depth + "1",
            ",".join(str(generator.randrange(99)) for _ in range(depth)), "{}" * depth, "\\" * depth, "$" * depth,
        ]
    )  # fmt: skip


def token_salad(generator: random.Random) -> str:
    """A random sequence of LaTeX tokens."""
    return " ".join(generator.choice(TOKENS) for _ in range(generator.randrange(1, 25)))


def completion(generator: random.Random, bombs: float) -> str:
    """One completion; a fraction `bombs` of them runs into the limits."""
    if generator.random() < bombs:
        return rf"So it is \boxed{{{bomb(generator)}}}."
    kind = generator.random()
    if kind < 0.01:
        return "a" * 2**20 + rf"\boxed{{{generator.randrange(100)}}}"
    if kind < 0.3:
        return rf"\boxed{{{nuisance(generator)}}}"
    if kind < 0.9:
        return rf"<think>{token_salad(generator)}</think> \boxed{{{token_salad(generator)}}}"
    return token_salad(generator)


def in_batches(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def children() -> set[int]:
    """Process ids of all descendants of this process."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def run(total: int, bombs: float, seconds: float, seed: int = 0, batch: int = 250) -> dict[str, Any]:
    """Grade `total` completions in batches, and return the measurements."""
    generator = random.Random(seed)
    earlier_children = children()  # in a test run, the workers of the shared grader
    grader = Grader(seconds=seconds)
    counts: Counter[str] = Counter()
    parent_mb, workers_mb = [], []
    start = time.monotonic()
    for size in in_batches(total, batch):
        texts = [completion(generator, bombs) for _ in range(size)]
        counts.update(judge(texts, [generator.choice(GOLDS) for _ in texts], grader))
        parent_mb.append(round(psutil.Process().memory_info().rss / 2**20, 1))
        sizes = [psutil.Process(pid).memory_info().rss / 2**20 for pid in grader.worker_ids()]
        workers_mb.append(round(max(sizes, default=0.0), 1))
    elapsed = time.monotonic() - start
    running = children() - earlier_children
    grader.close()
    return {
        "completions": total,
        "seconds": round(elapsed, 1),
        "limit_seconds": seconds,
        "longest_verdict_seconds": round(grader.longest_seconds, 3),
        "verdicts": dict(counts),
        "workers": grader.workers,
        "children_while_running": len(running),
        "children_left": len(children() - earlier_children),
        "parent_megabytes": parent_mb,
        "largest_worker_megabytes": workers_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--bombs", type=float, default=0.01)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    figures = run(args.completions, args.bombs, args.seconds)
    print(json.dumps(figures, indent=1))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
