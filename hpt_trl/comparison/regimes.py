"""Regimes of training data: how many prompts have a demonstration, and how good the demonstrations are."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpt_trl.miniature.families import training_rows

_WRONG_SHARE = 0.2
_LARGEST_SLIP = 9

Rewrite = Callable[[Mapping[str, Any], random.Random], str]
"""(row with an error-free demonstration, source of randomness) -> the regime's demonstration."""


@dataclass(frozen=True)
class Regime:
    """Training data that people have.

    Args:
        title: name in tables.
        demonstrations: how many prompts have a demonstration; None: all.
        rewrite: makes the regime's demonstrations from error-free ones.
        model: the base model; None: the first model of the comparison.
    """

    title: str
    demonstrations: int | None
    rewrite: Rewrite
    model: str | None = None


def error_free(row: Mapping[str, Any], generator: random.Random) -> str:
    """The demonstration as it is."""
    return row["demonstration"]


def sometimes_wrong(row: Mapping[str, Any], generator: random.Random) -> str:
    """One demonstration in five ends in a wrong answer: a slip of up to 9 in the boxed number."""
    slip = generator.choice((-1, 1)) * generator.randint(1, _LARGEST_SLIP)
    if generator.random() >= _WRONG_SHARE:
        return row["demonstration"]
    *steps, _ = row["demonstration"].splitlines()
    return "\n".join([*steps, f"\\boxed{{{int(row['solution']) + slip}}}"])


def textbook(row: Mapping[str, Any], generator: random.Random) -> str:
    """Easy problems have only their answer, as in a textbook."""
    return row["demonstration"].splitlines()[-1] if row["is_easy"] else row["demonstration"]


def foreign(row: Mapping[str, Any], generator: random.Random) -> str:
    """Another notation than the model's own, and longer: "3+4=7" becomes "3 + 4 is 7", in one sentence."""
    *steps, boxed = row["demonstration"].splitlines()
    spaced = [
        "".join(f" {character} " if character in "+-*%" else character for character in step).replace("=", " is ")
        for step in steps
    ]
    return "; ".join(spaced) + f"\n{boxed}"


REGIMES: dict[str, Regime] = {
    "exact_16": Regime("16 error-free", 16, error_free),
    "exact_128": Regime("128 error-free", 128, error_free),
    "exact_all": Regime("all error-free", None, error_free),
    "wrong_128": Regime("128, one in five wrong", 128, sometimes_wrong),
    "wrong_all": Regime("all, one in five wrong", None, sometimes_wrong),
    "textbook_128": Regime("128 of a textbook", 128, textbook),
    "foreign_128": Regime("128 in another notation", 128, foreign),
    "weak_128": Regime("128 error-free, weaker base", 128, error_free, model="qwen2-weak"),
}
"""Regimes by name. Titles say how many of the training prompts have a demonstration, and of what kind."""


def regime_rows(regime: Regime, count: int, seed: int) -> list[dict[str, Any]]:
    """Training rows of a regime; the prompts and the demonstrated ones are the same in all regimes.

    Args:
        regime: which demonstrations.
        count: number of problems.
        seed: selects the problems, their order and those with a demonstration.
    """
    generator = random.Random(f"{seed} demonstrations")
    rows = [row | {"demonstration": regime.rewrite(row, generator)} for row in training_rows(count, seed)]
    return rows if regime.demonstrations is None else with_few_demonstrations(rows, regime.demonstrations, seed)


def with_few_demonstrations(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """The rows, of which only `count`, drawn by the seed, keep their demonstration."""
    kept = set(random.Random(seed).sample(range(len(rows)), count))
    return [row if index in kept else row | {"demonstration": ""} for index, row in enumerate(rows)]
