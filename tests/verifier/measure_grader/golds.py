"""Measures whether every gold answer of the benchmarks is accepted as its own answer.

    python -m tests.verifier.measure_grader.golds ../shared/data/benchmarks --output notebooks/results/grader/golds.json

Counts how many are accepted in a box and in another form (integers as a sum, letters in a sentence). Also lists the
cases where the next gold answer of the suite is accepted instead; those two must be equal.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from hpt_trl.verifier.answers.boxes import last_boxed
from hpt_trl.verifier.answers.choices import letter_of
from hpt_trl.verifier.verdicts import judge


def boxed(answer: str) -> str:
    return rf"\boxed{{{last_boxed(answer) or answer}}}"


def respelled(answer: str) -> str:
    r"""The same answer in another form: with `\dfrac` and spaces, or an integer as a sum."""
    content = last_boxed(answer) or answer
    if letter_of(content):
        return rf"The answer is ({letter_of(content)})."
    if re.fullmatch(r"-?\d+", content):
        return rf"\boxed{{{int(content) - 1} + 1}}"
    return rf"\boxed{{\displaystyle {content.replace(chr(92) + 'frac', chr(92) + 'dfrac').replace('=', ' = ')}\,}}"


def measure(path: Path) -> dict[str, Any]:
    golds = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()]
    verdicts = judge([boxed(gold) for gold in golds], golds)
    respelled_verdicts = judge([respelled(gold) for gold in golds], golds)
    neighbours = golds[1:] + golds[:1]
    neighbour_verdicts = judge([boxed(gold) for gold in neighbours], golds)
    return {
        "golds": len(golds),
        "accepted": verdicts.count("right"),
        "accepted_respelled": respelled_verdicts.count("right"),
        "exceptions": [[gold, verdict] for gold, verdict in zip(golds, verdicts) if verdict != "right"],
        "exceptions_respelled": [
            [gold, verdict] for gold, verdict in zip(golds, respelled_verdicts) if verdict != "right"
        ],
        "neighbours_accepted": sorted(
            {
                (gold, answer)
                for gold, answer, verdict in zip(golds, neighbours, neighbour_verdicts)
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
