"""Eight suites of character-level arithmetic: six families for training, and two out-of-distribution suites.

Every question has an integer answer, and a demonstration that derives it line by line and boxes it. A hash of the
question assigns a problem to train or test, independently of the seed and of whether it is asked in words.

Each family has easy problems, which are in the pretraining data, and hard problems, which are not. A base model solves
almost none of the hard problems, just as a language model rarely solves problems far beyond its pretraining data.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from hpt_trl.miniature.tasks import LARGEST_OPERAND, LARGEST_START, LARGEST_VALUE, Split, split_of, unique

Numbers = Sequence[int]

LARGEST_EASY_OPERAND = 7
LARGE_DIGIT = 6
LARGEST_EASY_FACTOR = 6
LARGEST_EASY_DIVISOR = 6
LARGEST_EASY_DIGIT = 8

LONGER_CHAIN = 6
DIGITS = 5
IN_WORDS = "words"
LONGER = "longer"


@dataclass(frozen=True)
class Family:
    """One kind of problem.

    Args:
        title: name in tables.
        draw: samples the numbers of a problem.
        question: formats the numbers as a formula.
        words: formats the numbers as a question in words.
        steps: the lines of the derivation, and the answer.
        is_easy: whether such problems are in the pretraining data.
    """

    title: str
    draw: Callable[[random.Random], Numbers]
    question: Callable[[Numbers], str]
    words: Callable[[Numbers], str]
    steps: Callable[[Numbers], tuple[list[str], int]]
    is_easy: Callable[[Numbers], bool]


def _draw_chain(generator: random.Random, length: int) -> Numbers:
    """Sample a start and signed operands that keep every partial result between 0 and `LARGEST_VALUE`."""
    numbers = [generator.randint(1, LARGEST_START)]
    while len(numbers) <= length:
        operand = generator.choice((-1, 1)) * generator.randint(1, LARGEST_OPERAND)
        if 0 <= sum(numbers) + operand <= LARGEST_VALUE:
            numbers.append(operand)
    return numbers


def _chain_question(numbers: Numbers) -> str:
    return str(numbers[0]) + "".join(f"{operand:+d}" for operand in numbers[1:])


def _chain_words(numbers: Numbers) -> str:
    return f"{numbers[0]}" + "".join(f" {'add' if n > 0 else 'take'} {abs(n)}" for n in numbers[1:])


def _chain_steps(numbers: Numbers) -> tuple[list[str], int]:
    values = list(accumulate(numbers))
    return [f"{a}{operand:+d}={b}" for (a, b), operand in zip(pairwise(values), numbers[1:])], values[-1]


def _chain(length: int) -> Family:
    return Family(
        f"chains of {length}",
        lambda generator: _draw_chain(generator, length),
        _chain_question,
        _chain_words,
        _chain_steps,
        lambda numbers: all(abs(operand) <= LARGEST_EASY_OPERAND for operand in numbers[1:]),
    )


def _sum_steps(numbers: Numbers) -> tuple[list[str], int]:
    """Column by column from the right, with the carry as a third addend."""
    lines, carry = [], 0
    for place in (1, 10, 100):
        digits = [number // place % 10 for number in numbers]
        total = sum(digits) + carry
        lines.append("+".join(map(str, [*digits, carry])) + f"={total}")
        carry = total // 10
    return lines, sum(numbers)


def _product_steps(numbers: Numbers) -> tuple[list[str], int]:
    """Digit by digit from the right, with the carry added."""
    factor, number = numbers
    lines, carry = [], 0
    for place in (1, 10, 100):
        digit = number // place % 10
        total = factor * digit + carry
        lines.append(f"{factor}*{digit}+{carry}={total}")
        carry = total // 10
    return lines, factor * number


def _remainder_steps(numbers: Numbers) -> tuple[list[str], int]:
    """Digit by digit from the left; each remainder becomes the leading digit of the next step."""
    number, divisor = numbers
    lines, remainder = [], 0
    for digit in str(number):
        value = int(f"{remainder}{digit}")
        remainder = value % divisor
        lines.append(f"{value}%{divisor}={remainder}")
    return lines, remainder


def _digit_sum_steps(digits: Numbers) -> tuple[list[str], int]:
    sums = list(accumulate(digits))
    return [f"{a}+{digit}={b}" for (a, b), digit in zip(pairwise(sums), digits[1:])], sums[-1]


def _joined(digits: Numbers) -> str:
    return "".join(map(str, digits))


FAMILIES: dict[str, Family] = {
    "chain2": _chain(2),
    "chain4": _chain(4),
    "sum": Family(
        "sums of three digits",
        lambda generator: [generator.randint(100, 899), generator.randint(100, 899)],
        lambda numbers: "{}+{}".format(*numbers),
        lambda numbers: "{} and {} together".format(*numbers),
        _sum_steps,
        # No column has two large digits.
        lambda numbers: all(
            min(digits) < LARGE_DIGIT for digits in zip(*(map(int, str(number)) for number in numbers))
        ),
    ),
    "product": Family(
        "products",
        lambda generator: [generator.randint(2, 9), generator.randint(100, 999)],
        lambda numbers: "{}*{}".format(*numbers),
        lambda numbers: "{} times {}".format(*numbers),
        _product_steps,
        lambda numbers: numbers[0] <= LARGEST_EASY_FACTOR,
    ),
    "remainder": Family(
        "remainders",
        lambda generator: [generator.randint(100, 999), generator.randint(3, 9)],
        lambda numbers: "{}%{}".format(*numbers),
        lambda numbers: "{} cut by {} leaves".format(*numbers),
        _remainder_steps,
        lambda numbers: numbers[1] <= LARGEST_EASY_DIVISOR,
    ),
    "digits": Family(
        "digit sums",
        lambda generator: [generator.randint(1, 9) for _ in range(DIGITS)],
        lambda numbers: f"digits {_joined(numbers)}",
        lambda numbers: f"add up each digit of {_joined(numbers)}",
        _digit_sum_steps,
        lambda numbers: max(numbers) <= LARGEST_EASY_DIGIT,
    ),
}
"""The families for training."""

LONGER_FAMILY = _chain(LONGER_CHAIN)
SUITES: dict[str, str] = {
    **{name: family.title for name, family in FAMILIES.items()},
    LONGER: LONGER_FAMILY.title,
    IN_WORDS: "in words",
}
"""Title of each suite; the last two are out of distribution."""
IN_DISTRIBUTION = tuple(FAMILIES)
OUT_OF_DISTRIBUTION = (LONGER, IN_WORDS)


def sample_row(generator: random.Random, suite: str, split: Split, only_easy: bool = False) -> dict[str, Any]:
    """Sample one problem of a suite.

    Args:
        generator: source of randomness.
        suite: a key of `SUITES`.
        split: `"train"` or `"test"`.
        only_easy: exclude hard problems.

    Returns:
        A row with the texts `prompt`, `demonstration`, `solution` (digits only) and `suite`, and the flag `is_easy`.

    Raises:
        ValueError: if there is no such suite.
    """
    if suite not in SUITES:
        raise ValueError(f"The miniature has no suite {suite!r}: choose one of {', '.join(SUITES)}.")
    while True:
        family = LONGER_FAMILY if suite == LONGER else FAMILIES.get(suite) or generator.choice(list(FAMILIES.values()))
        numbers = family.draw(generator)
        is_easy = family.is_easy(numbers)
        if only_easy and not is_easy:
            continue
        if split_of(family.question(numbers)) == split:
            format_question = family.words if suite == IN_WORDS else family.question
            lines, answer = family.steps(numbers)
            return {
                "prompt": f"{format_question(numbers)}=?\n",
                "demonstration": "\n".join([*lines, f"\\boxed{{{answer}}}"]),
                "solution": str(answer),
                "suite": suite,
                "is_easy": is_easy,
            }


def suite_rows(suite: str, count: int, seed: int, split: Split) -> list[dict[str, Any]]:
    """Unique problems of one suite; the same arguments give the same rows.

    Raises:
        ValueError: if `count` is below 1.
    """
    generator = random.Random(f"{seed} {suite} {split}")
    return unique(count, "prompt", lambda: sample_row(generator, suite, split))


def training_rows(count: int, seed: int, textbook: bool = False) -> list[dict[str, Any]]:
    """Training problems in random order, divided as evenly as possible among the six families.

    Args:
        count: number of problems.
        seed: selects the problems and their order.
        textbook: keep the steps in the demonstrations of hard problems only; those of easy ones are the bare answer.
    """
    families = list(FAMILIES)
    counts = [count // len(families) + (index < count % len(families)) for index in range(len(families))]
    rows = [row for name, size in zip(families, counts) if size for row in suite_rows(name, size, seed, "train")]
    random.Random(seed).shuffle(rows)
    for row in rows:
        if textbook and row["is_easy"]:
            row["demonstration"] = row["demonstration"].splitlines()[-1]
    return rows
