r"""Seeded generators of answers: respellings of a gold answer, its neighbours, and what policies do to be judged right.

Each family draws a gold answer with respellings, which a mathematician accepts, and neighbours (another digit, sign,
exponent, order, unit or relation), which a mathematician refuses.
"""

import random
from collections.abc import Callable, Iterator

from tests.verifier.generators import numbers, structures
from tests.verifier.generators.drawn import Case, Drawn

FAMILIES: list[Callable[[random.Random], Drawn]] = [
    numbers.integer,
    numbers.fraction,
    numbers.mixed_number,
    numbers.decimal,
    numbers.scientific,
    numbers.surd,
    numbers.multiple_of_pi,
    numbers.power,
    numbers.near_a_limit,
    numbers.quantity,
    numbers.money,
    numbers.percent,
    numbers.ratio,
    numbers.time_of_day,
    numbers.based,
    numbers.complex_number,
    structures.pair,
    structures.set_of_values,
    structures.interval,
    structures.ray,
    structures.union,
    structures.polynomial,
    structures.assignment,
    structures.equation,
    structures.solved_for,
    structures.value_of_function,
    structures.matrix,
    structures.general_solution,
    structures.word,
    structures.symbol,
    structures.notation,
    structures.derivative,
]


def boxed(draw: random.Random, content: str) -> str:
    return draw.choice(
        [rf"So we get $\boxed{{{content}}}$.", rf"\boxed{{{content}}}", rf"<think>hm</think> \[\boxed{{{content}}}\]"]
    )


def respellings(total: int, seed: int = 0) -> Iterator[Case]:
    """Completions that are right, the families in turn."""
    draw = random.Random(seed)
    for index in range(total):
        family = FAMILIES[index % len(FAMILIES)]
        drawn = family(draw)
        yield Case(family.__name__, drawn.gold, boxed(draw, draw.choice([drawn.gold, *drawn.respellings])), True)


def neighbours(total: int, seed: int = 0) -> Iterator[Case]:
    """Completions that are wrong by a digit, a sign, an exponent, an order, a unit or a relation."""
    draw = random.Random(seed)
    for index in range(total):
        family = FAMILIES[index % len(FAMILIES)]
        drawn = family(draw)
        yield Case(family.__name__, drawn.gold, boxed(draw, draw.choice(drawn.neighbours)), False)
