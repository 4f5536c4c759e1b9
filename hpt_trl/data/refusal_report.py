"""Report on the rows of a dataset: how many were kept, how many were refused and why, with examples."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXAMPLES = 3
"""Number of examples per reason."""

EXCERPT = 240
"""Maximum length of an excerpt of a row, in characters."""


class Reason(StrEnum):
    """Why a row was refused. Each row has one reason: missing parts are checked first, the verifier comes last."""

    MALFORMED = "malformed"
    NO_PROMPT = "no prompt"
    NO_SOLUTION = "no solution"
    NO_DEMONSTRATION = "no demonstration"
    CONTAMINATED = "overlaps a benchmark"
    DUPLICATE = "duplicate prompt"
    UNREADABLE_SOLUTION = "the verifier cannot read the solution"
    UNFINISHED = "the demonstration never closes its thinking"
    NO_BOX = "the demonstration has no boxed answer"
    UNREADABLE_ANSWER = "the verifier cannot read the demonstration's answer"
    WRONG = "the demonstration's answer is wrong"
    TIMED_OUT = "the verifier timed out"


class RefusedError(ValueError):
    """A row cannot be used: the reason, and the details of what is wrong."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


@dataclass
class Report:
    """
    Numbers of rows read, kept, and refused by reason, with up to three examples per reason.

    `read == kept + refused.total()` always holds.

    Args:
        read: number of rows read.
        kept: number of rows kept.
        refused: number of refused rows, by reason.
        examples: a few refused rows, by reason.
        without_demonstration: number of kept rows without a demonstration, which are trained with RL only.
        solution_from_box: number of kept rows whose solution is the box of their own demonstration, so that the
            verifier cannot check it.
        contaminated: number of rows refused for overlapping a benchmark, by benchmark; a row that overlaps two
            benchmarks is counted for both.
        benchmarks: number of problems in the comparison, by benchmark.
        unchecked: reasons why benchmarks are missing from the comparison, by benchmark.
    """

    read: int = 0
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    without_demonstration: int = 0
    solution_from_box: int = 0
    contaminated: Counter[str] = field(default_factory=Counter)
    benchmarks: dict[str, int] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    def refuse(self, reason: Reason, row_number: int, detail: str, row: Any) -> None:
        """Count a refused row; `row_number` is its 1-based position in the source."""
        self.refused[reason.value] += 1
        examples = self.examples.setdefault(reason.value, [])
        if len(examples) < EXAMPLES:
            examples.append(f"row {row_number}: {detail + ': ' if detail else ''}{excerpt(row)}")

    def as_dict(self) -> dict[str, Any]:
        """The complete report, for JSON."""
        return {
            "read": self.read,
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
        """The counts without examples, in one line."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        counts = f"{self.read} rows read, {self.kept} kept, {self.refused.total()} refused"
        return f"{counts}: {reasons}." if reasons else f"{counts}."

    def __str__(self) -> str:
        lines = [f"{self.read} rows read, {self.kept} kept, {self.refused.total()} refused."]
        if self.without_demonstration:
            lines.append(
                f"  {self.without_demonstration} of the kept rows have no demonstration and are trained with RL only"
            )
        if self.solution_from_box:
            lines.append(
                f"  {self.solution_from_box} of the kept rows take their solution from their demonstration's box"
            )
        for reason, count in self.refused.most_common():
            by_benchmark = reason == Reason.CONTAMINATED and f" ({_counts(self.contaminated)})"
            lines.append(f"  {count} refused: {reason}{by_benchmark or ''}")
            lines += [f"    e.g. {example}" for example in self.examples[reason]]
        if self.benchmarks:
            lines.append(f"Decontaminated against {_counts(self.benchmarks)} problems.")
        lines += [f"Not compared with {name}: {reason}" for name, reason in self.unchecked.items()]
        return "\n".join(lines)


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def excerpt(row: Any) -> str:
    """A row on one line, shortened in the middle if it is too long."""
    text = " ".join(str(row).split())
    half = EXCERPT // 2 - 2
    return text if len(text) <= EXCERPT else f"{text[:half]} ... {text[-half:]}"
