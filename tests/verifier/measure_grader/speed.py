"""Measures the time to grade 512 ordinary answers, with the pool and with math-verify in one process, without caches.

python -m tests.verifier.measure_grader.speed --output notebooks/results/grader/speed.json
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

CODE = {
    "math_verify_in_process": """
from math_verify import parse, verify
def judged(pairs):
    return [verify(parse(f"\\\\boxed{{{gold}}}"), parse(f"\\\\boxed{{{answer}}}")) for answer, gold in pairs]
""",
    "pool": """
from hpt_trl.verifier.grader import Grader
grader = Grader()
def judged(pairs):
    return [verdict == "right" for verdict in grader.judge(pairs)]
""",
}
TIMED = """
import json, sys, time
start = time.perf_counter()
{code}
warm_up, pairs = json.load(sys.stdin)
judged(warm_up)
ready = time.perf_counter()
right = sum(judged(pairs))
end = time.perf_counter()
print(json.dumps({{"start_seconds": ready - start, "batch_seconds": end - ready, "right": right}}))
"""


def ordinary_pairs(count: int, seed: int, integers: int) -> list[tuple[str, str]]:
    """Distinct pairs of answer and gold as in a batch of rollouts; integers / (3 + integers) of them are integers."""
    generator = random.Random(seed)
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < count:
        a, b, c = (generator.randrange(2, 400) for _ in range(3))
        pair = generator.choice(
            [(str(a), str(a))] * integers
            + [(str(a), str(b))] * integers
            + [
                (rf"\dfrac{{{a}}}{{{b}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
                (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
                (rf"({a}, {b})", rf"({a},{c})"),
                (rf"{a}\pi", rf"{a}\pi"),
                (rf"{a / 100}", rf"\frac{{{a}}}{{100}}"),
                (rf"x^2+{a}x+{b}", rf"{b}+x({a}+x)"),
            ]
        )
        pairs[pair] = None
    return list(pairs)


def measure(code: str, pairs: list[tuple[str, str]]) -> dict[str, float]:
    warm_up = [(f"{number}+{number}", f"{2 * number}.0") for number in range(1000, 1064)]  # starts all workers
    program = TIMED.format(code=code)
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps([warm_up, pairs]), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def compare(repeats: int, integers: int) -> dict[str, Any]:
    """Alternate the runs, so that other load on the machine affects both, and take the median of their ratios."""
    runs: list[dict[str, Any]] = []
    for repeat in range(repeats):
        pairs = ordinary_pairs(512, repeat, integers)
        run: dict[str, Any] = {name: measure(code, pairs) for name, code in CODE.items()}
        run["ratio"] = run["math_verify_in_process"]["batch_seconds"] / run["pool"]["batch_seconds"]
        runs.append(run)
        print(json.dumps(run))
    return {"median_ratio": statistics.median(run["ratio"] for run in runs), "pairs": 512, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    figures = {"half integers": compare(args.repeats, 3), "no integers": compare(args.repeats, 0)}
    for name, figure in figures.items():
        print(f"{name}: the pool is {figure['median_ratio']:.2f} times as fast")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
