"""A gold answer with right and wrong answers, and a completion to judge."""

from typing import NamedTuple


class Drawn(NamedTuple):
    """A gold answer with the contents of right and of wrong boxes."""

    gold: str
    respellings: list[str]
    neighbours: list[str]


class Case(NamedTuple):
    """One completion to judge."""

    kind: str
    gold: str
    completion: str
    expected: bool
