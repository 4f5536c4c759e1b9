"""Measures how often verdicts are mistaken on generated answers, ours and math-verify's.

    python -m tests.verifier.measure_grader.rates --output notebooks/results/grader/rates.json

`respellings` must be accepted, `neighbours` and `hostile` completions refused. math-verify gets the same box and gold.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from math_verify import parse, verify

from hpt_trl.verifier.answers.boxes import last_box_span
from hpt_trl.verifier.grader import Grader
from hpt_trl.verifier.verdicts import judge
from tests.verifier.generators import neighbours, respellings
from tests.verifier.generators.drawn import Case
from tests.verifier.generators.hostile import hostile

GENERATORS = {"respellings": respellings, "neighbours": neighbours, "hostile": hostile}


def by_math_verify(case: Case) -> bool:
    """Whether math-verify accepts the completion's last box."""
    text = case.completion.rpartition("</think>")[2]
    span = last_box_span(text)
    answer = rf"\boxed{{{text[slice(*span)]}}}" if span else text
    return bool(verify(parse(rf"\boxed{{{case.gold}}}"), parse(answer)))


def mistakes(cases: Sequence[Case]) -> list[Case]:
    """The cases in which our verdict differs from the expected one."""
    verdicts = judge([case.completion for case in cases], [case.gold for case in cases], Grader(seconds=60.0))
    return [case for case, verdict in zip(cases, verdicts) if (verdict == "right") != case.expected]


def measure(total: int, seed: int, peer_total: int) -> dict[str, Any]:
    """Mistakes of both on each generator; math-verify, which is slower, on the first `peer_total` cases."""
    figures = {}
    for name, generate in GENERATORS.items():
        cases = list(generate(total, seed))
        ours = mistakes(cases)
        peers = [case for case in cases[:peer_total] if by_math_verify(case) != case.expected]
        figures[name] = {
            "cases": len(cases),
            "ours_mistaken": len(ours),
            "ours_mistaken_examples": [case._asdict() for case in ours[:20]],
            "math_verify_cases": min(peer_total, len(cases)),
            "math_verify_mistaken": len(peers),
            "math_verify_mistaken_by_kind": dict(Counter(case.kind for case in peers).most_common()),
            "only_ours_mistaken": sum(case not in peers for case in ours if case in cases[:peer_total]),
        }
        print(
            f"{name}: ours mistaken in {len(ours)} of {len(cases)}, math-verify in {len(peers)} of "
            f"{min(peer_total, len(cases))}"
        )
    return {"seed": seed, **figures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total", type=int, default=10_000)
    parser.add_argument("--math_verify_total", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    figures = measure(args.total, args.seed, args.math_verify_total)
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
