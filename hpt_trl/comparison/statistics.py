"""Means over seeds, confidence intervals, and significance tests of differences between methods."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean and the ends of its 95% confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95% t interval of independent values; the ends are NaN for a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def paired_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of the paired t test that the mean difference is 0.

    NaN for fewer than two differences, and for differences that are equal up to rounding: with counted answers that is
    a coincidence, and the variance cannot be estimated from it.
    """
    if len(differences) < 2 or max(differences) - min(differences) < 1e-9:
        return math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-Bonferroni correction of several p-values, which controls the family-wise error rate; NaN stays NaN.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    ordered = sorted((name for name in p_values if not math.isnan(p_values[name])), key=lambda name: p_values[name])
    corrected, largest = dict.fromkeys(p_values, math.nan), 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected
