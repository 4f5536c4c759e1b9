"""avg@k, pass@k and their intervals, against arithmetic done by hand."""

import math

import numpy as np
import pytest

from hpt_trl.evaluation.scores import (
    Answer,
    SuiteScore,
    bootstrap_means,
    estimate,
    group_average,
    pass_at_k,
    score_suite,
    wilson_interval,
)

# n samples, c right, k drawn: 1 - C(n-c, k) / C(n, k).
COUNTS = [(1, 0, 1), (1, 1, 1), (4, 2, 2), (5, 1, 5), (8, 3, 4), (32, 1, 32), (32, 5, 8), (200, 7, 100), (1000, 1, 1)]


@pytest.mark.parametrize(("samples", "right", "k"), COUNTS)
def test_pass_at_k_is_the_closed_form(samples, right, k):
    closed = 1 - math.comb(samples - right, k) / math.comb(samples, k)
    assert pass_at_k(samples, right, k) == pytest.approx(closed, abs=1e-12)


def test_pass_at_k_by_hand():
    # 4 samples, 2 right: of the 6 pairs only one holds both wrong ones.
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0  # only one is wrong: every pair holds a right one
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)  # pass@1 is avg@k


def test_pass_at_k_is_stable_where_the_binomials_overflow():
    with pytest.raises(OverflowError):
        float(math.comb(10_000, 5_000))
    # C(n-1, k) / C(n, k) = 1 - k/n.
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(samples, right, k):
    with pytest.raises(ValueError, match=r"pass@|cannot be right"):
        pass_at_k(samples, right, k)


def test_wilson_interval_by_hand():
    # n = 100, p = 0.1, z = 1.96: z^2 = 3.8416.
    # Centre (0.1 + 3.8416/200) / 1.038416, spread 1.96 sqrt(0.09/100 + 3.8416/40000) / 1.038416.
    centre, spread = 0.119208 / 1.038416, 1.96 * math.sqrt(0.0009 + 0.00009604) / 1.038416
    assert wilson_interval(0.1, 100) == pytest.approx((centre - spread, centre + spread))
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(1.0, 10)[1] == 1.0


def test_the_bootstrap_spreads_as_a_mean_does():
    # 400 problems, a quarter solved: standard error sqrt(0.25 * 0.75 / 400) = 0.02165, 95 % within 1.96 of them.
    shares_P = np.array([1.0, 0.0, 0.0, 0.0] * 100)
    assert bootstrap_means(shares_P, 0).std() == pytest.approx(0.02165, rel=0.05)
    got = estimate(shares_P, seed=0)
    assert (got.value, got.low, got.high) == pytest.approx((0.25, 0.25 - 0.0424, 0.25 + 0.0424), abs=0.005)
    assert estimate(shares_P, seed=0) == got


def test_no_spread_is_no_certainty():
    """Resampling thirty unsolved problems gives none solved, ever; the interval is Wilson's."""
    got = estimate(np.zeros(30), seed=0)
    assert (got.low, got.high) == wilson_interval(0.0, 30)
    assert got.high > 0.1


def answers(verdicts_P_G: list[list[str]]) -> list[Answer]:
    return [
        Answer(problem, sample, "", tokens=10 + problem, cut=sample == 0, verdict=verdict)
        for problem, row in enumerate(verdicts_P_G)
        for sample, verdict in enumerate(row)
    ]


def test_a_suite_is_counted():
    rows = [["right", "wrong"], ["right", "right"], ["unparseable gold"] * 2, ["timed out", "unparseable answer"]]
    # In any order: the journal keeps them as they were made.
    got = score_suite("T", "", answers(rows)[::-1], samples=2, pass_at=[2, 4])
    assert got.right == [1, 2, 0, 0]
    assert got.average.value == pytest.approx(3 / 8)
    assert got.pass_at[2].value == pytest.approx(2 / 4)
    assert list(got.pass_at) == [2]  # no pass@4 of 2 samples
    assert got.unreadable_golds == 1
    assert got.verdicts == {"right": 3, "timed out": 1, "unparseable answer": 1, "unparseable gold": 2, "wrong": 1}
    assert got.cut_share == 0.5
    assert got.mean_tokens == 11.5


def suite(rows: list[list[str]]) -> SuiteScore:
    return score_suite("T", "in distribution", answers(rows), samples=len(rows[0]), pass_at=[2])


def test_an_average_counts_every_suite_as_one():
    few, many = suite([["right", "right"]]), suite([["wrong", "right"], ["wrong", "wrong"]] * 50)
    # (1 + 1/4) / 2, not (2 + 50) / 202.
    assert group_average([few, many]).value == pytest.approx(0.625)
    assert group_average([few, many], k=2).value == pytest.approx((1 + 0.5) / 2)
    assert group_average([few]) is None
    assert group_average([few, suite([["right"]])], k=2) is None


def test_an_average_without_spread_is_no_certainty_either():
    # Two suites of 10 and 30 unsolved problems: 2^2 / (1/10 + 1/30) = 30 problems.
    got = group_average([suite([["wrong"]] * 10), suite([["wrong"]] * 30)])
    assert (got.low, got.high) == wilson_interval(0.0, 30)
