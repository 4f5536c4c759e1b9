"""Sums of a number's digits, with step-by-step demonstrations: problems that the bundled model has never seen."""

from __future__ import annotations

import random
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from hpt_trl.miniature.tasks import Split

if TYPE_CHECKING:
    from datasets import Dataset

TRAIN_PROBLEMS = 160


def digit_sums(split: Split) -> list[dict[str, str]]:
    """Return the problems of one split, always in the same order: 160 of the numbers from 100 to 999, or the other 740.

    Returns:
        Rows with the keys `prompt`, `demonstration` and `solution`, all plain text.

    Raises:
        ValueError: If `split` is unknown.

    Example:
        >>> digit_sums("train")[0]
        {'prompt': 'sum 964\\n', 'demonstration': '9+6=15\\n15+4=19\\n\\\\boxed{19}', 'solution': '19'}
    """
    if split not in ("train", "test"):
        raise ValueError(f"The digit sums have no split {split!r}: choose 'train' or 'test'.")
    numbers = random.Random(0).sample(range(100, 1000), 900)
    chosen = numbers[:TRAIN_PROBLEMS] if split == "train" else numbers[TRAIN_PROBLEMS:]
    return [_row(number) for number in chosen]


def dataset(split: Split) -> Dataset:
    """Return the rows of `digit_sums(split)` as a `datasets.Dataset`."""
    from datasets import Dataset

    return Dataset.from_list(digit_sums(split))


def _row(number: int) -> dict[str, str]:
    """Format a number as a prompt, a demonstration with the running total line by line, and a gold solution."""
    digits = [int(digit) for digit in str(number)]
    totals = list(accumulate(digits))
    lines = [f"{before}+{digit}={after}" for (before, after), digit in zip(pairwise(totals), digits[1:])]
    return {
        "prompt": f"sum {number}\n",
        "demonstration": "\n".join([*lines, f"\\boxed{{{totals[-1]}}}"]),
        "solution": str(totals[-1]),
    }
