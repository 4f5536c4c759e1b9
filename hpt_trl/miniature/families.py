"""Eight suites of arithmetic over characters: six families to train on, and two suites out of their distribution.

Every question has one answer, an integer, and a demonstration that works it out line by line and boxes it. A problem
belongs to train or test by a hash of its question, whatever the seed, and keeps its side when it is asked in words.

Each family has an easy part, which pretraining holds, and a hard part, which it does not: there a base model finds next
to nothing by itself, as a language model finds nothing in problems beyond what it has read.
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
LARGE_SUMMAND = 6
LARGEST_EASY_FACTOR = 6
LARGEST_EASY_DIVISOR = 6
LARGEST_EASY_DIGIT = 8

LONGER_CHAIN = 6
DIGITS = 5
IN_WORDS = "words"
LONGER = "longer"


@dataclass(frozen=True)
class Family:
    """One kind of question.

    Args:
        title: for tables.
        draw: numbers of a random problem.
        question: the numbers as a formula.
        words: the same question in words.
        steps: the lines of the way, and the answer.
        is_easy: whether pretraining holds such problems.
    """

    title: str
    draw: Callable[[random.Random], Numbers]
    question: Callable[[Numbers], str]
    words: Callable[[Numbers], str]
    steps: Callable[[Numbers], tuple[list[str], int]]
    is_easy: Callable[[Numbers], bool]


def _draw_chain(generator: random.Random, length: int) -> Numbers:
    """A start and signed operands that keep every running value between 0 and `LARGEST_VALUE`."""
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
    """Column by column from the right, with the carry as a third summand."""
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
    """Digit by digit from the left: what is left over goes before the next digit."""
    number, divisor = numbers
    lines, left = [], 0
    for digit in str(number):
        value = int(f"{left}{digit}")
        left = value % divisor
        lines.append(f"{value}%{divisor}={left}")
    return lines, left


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
        # No column adds two digits of which both are large.
        lambda numbers: all(
            min(digits) < LARGE_SUMMAND for digits in zip(*(map(int, str(number)) for number in numbers))
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
"""What is trained on."""

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
    """Draw one problem of a suite.

    Args:
        generator: source of randomness.
        suite: of `SUITES`.
        split: `"train"` or `"test"`.
        only_easy: leave out the hard part.

    Returns:
        `prompt`, `demonstration`, `solution` (digits only) and `suite`, all text; and `is_easy`.

    Raises:
        ValueError: if there is no such suite.
    """
    if suite not in SUITES:
        raise ValueError(f"There is no suite {suite!r} of the miniature: choose one of {', '.join(SUITES)}.")
    while True:
        family = LONGER_FAMILY if suite == LONGER else FAMILIES.get(suite) or generator.choice(list(FAMILIES.values()))
        numbers = family.draw(generator)
        is_easy = family.is_easy(numbers)
        if only_easy and not is_easy:
            continue
        if split_of(family.question(numbers)) == split:
            ask = family.words if suite == IN_WORDS else family.question
            lines, answer = family.steps(numbers)
            return {
                "prompt": f"{ask(numbers)}=?\n",
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
    """`count` training problems, as even over the six families as they go, in a random order.

    Args:
        count: how many.
        seed: which, and their order.
        textbook: demonstrations work the hard problems out and give of the easy ones the bare answer.
    """
    families = list(FAMILIES)
    shares = [count // len(families) + (place < count % len(families)) for place in range(len(families))]
    rows = [row for name, share in zip(families, shares) if share for row in suite_rows(name, share, seed, "train")]
    random.Random(seed).shuffle(rows)
    for row in rows:
        if textbook and row["is_easy"]:
            row["demonstration"] = row["demonstration"].splitlines()[-1]
    return rows
