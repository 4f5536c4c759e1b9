"""What happened to every row of a data set: kept, or refused for a reason, with examples."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXAMPLES = 3
"""Examples kept of each reason."""

EXCERPT = 240
"""Longest excerpt of a row in an example, in characters."""


class Reason(StrEnum):
    """Why a row was refused. A row is refused once: what it lacks comes first, the verifier's word last."""

    MALFORMED = "malformed"
    NO_PROMPT = "no prompt"
    NO_SOLUTION = "no solution"
    NO_DEMONSTRATION = "no demonstration"
    CONTAMINATED = "overlaps a benchmark"
    DUPLICATE = "a prompt that was kept already"
    UNREADABLE_SOLUTION = "the verifier cannot read the solution"
    UNFINISHED = "the demonstration never ends its thinking"
    NO_BOX = "the demonstration has no boxed answer"
    UNREADABLE_ANSWER = "the verifier cannot read the demonstration's answer"
    WRONG = "the demonstration's answer is wrong"
    TIMED_OUT = "the verifier ran out of time"


class RefusedError(ValueError):
    """One row cannot be used: the reason, and what exactly was wrong with it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass
class Report:
    """
    How many rows came, were kept, and were refused for which reason, with up to three examples each.

    `came == kept + refused.total()` always holds.

    Args:
        came: rows read.
        kept: rows written.
        refused: rows refused, by reason.
        examples: a few refused rows, by reason.
        without_demonstration: of the rows kept, those that have none and stay on RL.
        solution_from_box: of the rows kept, those whose solution is the box of their own demonstration, so that the
            verifier could say nothing new.
        contaminated: rows refused for overlapping a benchmark, by benchmark; a row that overlaps two counts in both.
        benchmarks: problems compared with, by benchmark.
        unchecked: benchmarks that were not compared with, and why not.
    """

    came: int = 0
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    without_demonstration: int = 0
    solution_from_box: int = 0
    contaminated: Counter[str] = field(default_factory=Counter)
    benchmarks: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    def refuse(self, reason: Reason, row_number: int, detail: str, row: Any) -> None:
        """Count a refused row; `row_number` is its place in the source, from 1."""
        self.refused[reason.value] += 1
        examples = self.examples.setdefault(reason.value, [])
        if len(examples) < EXAMPLES:
            examples.append(f"row {row_number}: {detail + ': ' if detail else ''}{excerpt(row)}")

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "came": self.came,
            "kept": self.kept,
            "kept_without_demonstration": self.without_demonstration,
            "kept_with_solution_from_own_box": self.solution_from_box,
            "refused": {
                reason: {"rows": count, "examples": self.examples[reason]}
                for reason, count in self.refused.most_common()
            },
            "decontamination": {
                "refused_by_benchmark": dict(self.contaminated),
                "problems_by_benchmark": self.benchmarks,
                "not_compared_with": self.unchecked,
            },
        }

    def summary(self) -> str:
        """One line: the counts without examples."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        counts = f"{self.came} rows came, {self.kept} kept, {self.refused.total()} refused"
        return f"{counts}: {reasons}." if reasons else f"{counts}."

    def __str__(self) -> str:
        lines = [f"{self.came} rows came, {self.kept} kept, {self.refused.total()} refused."]
        if self.without_demonstration:
            lines.append(f"  {self.without_demonstration} of the kept have no demonstration: they stay on RL")
        if self.solution_from_box:
            lines.append(
                f"  {self.solution_from_box} of the kept take their solution from their demonstration's own box"
            )
        for reason, count in self.refused.most_common():
            by_benchmark = reason == Reason.CONTAMINATED and f" ({_counts(self.contaminated)})"
            lines.append(f"  {count} refused: {reason}{by_benchmark or ''}")
            lines += [f"    e.g. {example}" for example in self.examples[reason]]
        if self.benchmarks:
            lines.append(f"Decontaminated against {_counts(self.benchmarks)} problems.")
        lines += [f"Not compared with {name}: {why}" for name, why in self.unchecked.items()]
        return "\n".join(lines)


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def excerpt(row: Any) -> str:
    """A row on one line, its middle left out where it is long."""
    text = " ".join(str(row).split())
    half = EXCERPT // 2 - 2
    return text if len(text) <= EXCERPT else f"{text[:half]} ... {text[-half:]}"
