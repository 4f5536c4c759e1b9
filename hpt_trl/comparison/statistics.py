"""Means over seeds, their intervals, and whether a difference between methods could be chance. Plain numbers only."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def t_tail(t: float, degrees: int) -> float:
    """P(|T| > |t|) of Student's distribution.

    Args:
        t: the statistic.
        degrees: of freedom, a whole number of at least 1.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    is_odd = degrees % 2
    term, total = (cosine, 0.0) if is_odd else (1.0, 0.0)
    for power in range(2 + is_odd, degrees + 1, 2):
        total += term
        term *= cosine**2 * (power - 1) / power
    inside = (angle + sine * total) * 2 / math.pi if is_odd else sine * total
    return max(0.0, 1.0 - inside)


def t_quantile(degrees: int, tail: float = 0.05) -> float:
    """The t beyond which, on both sides together, a share `tail` of Student's distribution lies."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, degrees) > tail else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t interval of independent values; of one value nothing is known but itself."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = t_quantile(len(values) - 1) * _standard_error(values, mean)
    return Interval(mean, mean - half, mean + half)


def _standard_error(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def paired_p(differences: Sequence[float]) -> float:
    """P value of the paired t test, two-sided: could differences with a mean of 0 lie so far from it?

    NaN of fewer than two differences.
    """
    if len(differences) < 2:
        return math.nan
    mean = math.fsum(differences) / len(differences)
    error = _standard_error(differences, mean)
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return t_tail(mean / error, len(differences) - 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values corrected for being several, so that the chance of any false alarm stays what it says.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    corrected, largest = {}, 0.0
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}
