"""Procedurally generated chains of additions and subtractions, with step-by-step demonstrations."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datasets import Dataset

Split = Literal["train", "test"]

CHAIN_LENGTHS = (2, 3, 4)
LARGEST_START = 50
LARGEST_OPERAND = 9
LARGEST_VALUE = 99
TEST_PERCENT = 20


def split_of(problem: str) -> Split:
    """Return the split a problem belongs to, from a stable hash of its text.

    Hashing the text, instead of shuffling with a seed, keeps train and test disjoint for all seeds.
    """
    return "test" if zlib.crc32(problem.encode()) % 100 < TEST_PERCENT else "train"


def problems(count: int, seed: int, split: Split) -> list[dict[str, str]]:
    """Generate unique problems of one split.

    Args:
        count: Number of rows, at least 1.
        seed: Seed of the generator; the same arguments always give the same rows.
        split: `"train"` or `"test"`; they are disjoint for all seeds.

    Returns:
        Rows with the keys `prompt`, `demonstration` and `solution`, all plain text.

    Raises:
        ValueError: If `split` is unknown or `count` is below 1.

    Example:
        >>> problems(1, seed=0, split="train")[0]["demonstration"].splitlines()
        ['49+1=50', '50+9=59', '59+7=66', '\\\\boxed{66}']
    """
    if split not in ("train", "test"):
        raise ValueError(f"The arithmetic problems have no split {split!r}: choose 'train' or 'test'.")
    generator = random.Random(seed)
    return unique(count, "prompt", lambda: sample_problem(generator, generator.choice(CHAIN_LENGTHS), split))


def unique(count: int, key: str, draw: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
    """Sample rows until `count` of them have distinct values in one column.

    Args:
        count: Number of rows, at least 1.
        key: The column.
        draw: Samples one row.

    Raises:
        ValueError: If `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"The number of problems must be at least 1, got {count}.")
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < count:
        row = draw()
        rows.setdefault(row[key], row)
    return list(rows.values())


def dataset(count: int, seed: int, split: Split) -> Dataset:
    """Return the rows of `problems(count, seed, split)` as a `datasets.Dataset`."""
    from datasets import Dataset

    return Dataset.from_list(problems(count, seed, split))


def sample_problem(generator: random.Random, length: int, split: Split) -> dict[str, str]:
    """Sample one problem of a split, with `length` additions or subtractions."""
    while True:
        start, operations = _sample_chain(generator, length)
        row = _row(start, operations)
        if split_of(row["prompt"]) == split:
            return row


def _sample_chain(generator: random.Random, length: int) -> tuple[int, list[int]]:
    """Sample a start and `length` signed operands that keep every partial result between 0 and `LARGEST_VALUE`."""
    start = value = generator.randint(1, LARGEST_START)
    operations: list[int] = []
    while len(operations) < length:
        operand = generator.choice((-1, 1)) * generator.randint(1, LARGEST_OPERAND)
        if 0 <= value + operand <= LARGEST_VALUE:
            operations.append(operand)
            value += operand
    return start, operations


def _row(start: int, operations: Sequence[int]) -> dict[str, str]:
    """Format a chain as a prompt, a demonstration with one line per operation, and a gold solution."""
    value = start
    lines = []
    for operand in operations:
        lines.append(f"{value}{operand:+d}={value + operand}")
        value += operand
    chain = str(start) + "".join(f"{operand:+d}" for operand in operations)
    return {
        "prompt": f"{chain}=?\n",
        "demonstration": "\n".join([*lines, f"\\boxed{{{value}}}"]),
        "solution": f"${value}$",
    }
