"""Is every gold answer of the benchmarks accepted as its own answer?

    python -m tests.verifier.measure_grader.golds ../shared/data/benchmarks --output notebooks/results/grader/golds.json

Counts the gold in a box, and the gold in another spelling (integers as a sum, letters in a sentence); and lists where
the next gold of the suite is accepted in its place, which must be equal then.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from hpt_trl.verifier.answers.normalization import last_boxed
from hpt_trl.verifier.verdicts import judge, letter_of


def boxed(answer: str) -> str:
    return rf"\boxed{{{last_boxed(answer) or answer}}}"


def respelled(answer: str) -> str:
    r"""The same answer with `\dfrac`, spaces, and where it is an integer, as a sum."""
    content = last_boxed(answer) or answer
    if letter_of(content):
        return rf"The answer is ({letter_of(content)})."
    if re.fullmatch(r"-?\d+", content):
        return rf"\boxed{{{int(content) - 1} + 1}}"
    return rf"\boxed{{\displaystyle {content.replace(chr(92) + 'frac', chr(92) + 'dfrac').replace('=', ' = ')}\,}}"


def measure(path: Path) -> dict[str, Any]:
    golds = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    own = judge([boxed(gold) for gold in golds], golds)
    other = judge([respelled(gold) for gold in golds], golds)
    shifted = golds[1:] + golds[:1]
    wrong = judge([boxed(gold) for gold in shifted], golds)
    return {
        "golds": len(golds),
        "accepted": own.count("right"),
        "accepted_respelled": other.count("right"),
        "exceptions": [[gold, verdict] for gold, verdict in zip(golds, own) if verdict != "right"],
        "exceptions_respelled": [[gold, verdict] for gold, verdict in zip(golds, other) if verdict != "right"],
        "neighbours_accepted": sorted(
            {
                (gold, answer)
                for gold, answer, verdict in zip(golds, shifted, wrong)
                if verdict == "right" and gold != answer
            }
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    suites = {path.stem: measure(path) for path in sorted(args.folder.glob("*.jsonl"))}
    total = sum(suite["golds"] for suite in suites.values())
    accepted = sum(suite["accepted"] for suite in suites.values())
    for name, suite in suites.items():
        print(name, suite)
    print(f"{accepted} of {total} accepted")
    if args.output:
        args.output.write_text(json.dumps({"golds": total, "accepted": accepted, "suites": suites}, indent=1) + "\n")


if __name__ == "__main__":
    main()
