"""Means over seeds, their intervals, and whether a difference between methods could be chance. Plain numbers only."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t interval of independent values; of one value nothing is known but itself."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def paired_p(differences: Sequence[float]) -> float:
    """P value of the paired t test, two-sided: could differences with a mean of 0 lie so far from it?

    NaN of fewer than two differences, and of differences that are all alike but for rounding: of counted answers that
    is a coincidence, which says nothing about their spread.
    """
    if len(differences) < 2 or max(differences) - min(differences) < 1e-9:
        return math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values corrected for being several, so that the chance of any false alarm stays what it says; NaN stays NaN.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    ordered = sorted((name for name in p_values if not math.isnan(p_values[name])), key=lambda name: p_values[name])
    corrected, largest = dict.fromkeys(p_values, math.nan), 0.0
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        corrected[name] = largest
    return corrected
