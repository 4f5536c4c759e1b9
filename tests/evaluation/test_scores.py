"""avg@k, pass@k and their intervals, compared with calculations by hand."""

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

# n samples, c correct, k drawn: 1 - C(n-c, k) / C(n, k).
COUNTS = [(1, 0, 1), (1, 1, 1), (4, 2, 2), (5, 1, 5), (8, 3, 4), (32, 1, 32), (32, 5, 8), (200, 7, 100), (1000, 1, 1)]


@pytest.mark.parametrize(("samples", "right", "k"), COUNTS)
def test_pass_at_k_is_the_closed_form(samples, right, k):
    closed = 1 - math.comb(samples - right, k) / math.comb(samples, k)
    assert pass_at_k(samples, right, k) == pytest.approx(closed, abs=1e-12)


def test_pass_at_k_by_hand():
    # 4 samples, 2 correct: only one of the 6 pairs contains both wrong ones.
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0  # only one is wrong: every pair contains a correct one
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8)  # pass@1 is avg@k


def test_pass_at_k_is_stable_where_the_binomials_overflow():
    with pytest.raises(OverflowError):
        float(math.comb(10_000, 5_000))
    # C(n-1, k) / C(n, k) = 1 - k/n.
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("samples", "right", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_impossible_counts(samples, right, k):
    with pytest.raises(ValueError, match=r"pass@|cannot be correct"):
        pass_at_k(samples, right, k)


def test_wilson_interval_by_hand():
    # n = 100, p = 0.1, z = 1.96: z^2 = 3.8416.
    # Center (0.1 + 3.8416/200) / 1.038416, half width 1.96 sqrt(0.09/100 + 3.8416/40000) / 1.038416.
    center, half_width = 0.119208 / 1.038416, 1.96 * math.sqrt(0.0009 + 0.00009604) / 1.038416
    assert wilson_interval(0.1, 100) == pytest.approx((center - half_width, center + half_width))
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(1.0, 10)[1] == 1.0


def test_the_bootstrap_has_the_standard_error_of_a_mean():
    # 400 problems, a quarter solved: standard error sqrt(0.25 * 0.75 / 400) = 0.02165, 95% within 1.96 of them.
    shares_P = np.array([1.0, 0.0, 0.0, 0.0] * 100)
    assert bootstrap_means(shares_P, 0).std() == pytest.approx(0.02165, rel=0.05)
    # Half of each: (1 + 0) / 2 and (0 + 0) / 2 at half the standard error, around 0.125.
    result = estimate(shares_P / 2, seed=0)
    assert (result.value, result.low, result.high) == pytest.approx((0.125, 0.125 - 0.0212, 0.125 + 0.0212), abs=0.003)
    assert estimate(shares_P / 2, seed=0) == result


def test_an_evaluation_with_one_sample_per_problem_has_wilsons_interval():
    """Also pass@k with k samples, of which each problem has solved one or none."""
    rows = [["right"], ["wrong"], ["wrong"], ["wrong"]] * 25
    score = score_suite("T", "", answers(rows), samples=1, pass_at=[1])
    assert (score.average.low, score.average.high) == wilson_interval(0.25, 100)
    twice = score_suite("T", "", answers([[*row, "wrong"] for row in rows]), samples=2, pass_at=[2])
    assert (twice.pass_at[2].low, twice.pass_at[2].high) == wilson_interval(0.25, 100)
    assert twice.average.high < wilson_interval(0.125, 100)[1]


def test_equal_scores_do_not_give_a_zero_width_interval():
    """Resampling thirty unsolved problems never gives a solved one, so the interval is Wilson's."""
    result = estimate(np.zeros(30), seed=0)
    assert (result.low, result.high) == wilson_interval(0.0, 30)
    assert result.high > 0.1


def answers(verdicts_P_G: list[list[str]]) -> list[Answer]:
    return [
        Answer(problem, sample, "", tokens=10 + problem, cut=sample == 0, verdict=verdict)
        for problem, row in enumerate(verdicts_P_G)
        for sample, verdict in enumerate(row)
    ]


def test_a_suite_is_scored():
    rows = [["right", "wrong"], ["right", "right"], ["unparseable gold"] * 2, ["timed out", "unparseable answer"]]
    # In any order, because the journal keeps them in the order of generation.
    score = score_suite("T", "", answers(rows)[::-1], samples=2, pass_at=[2, 4])
    assert score.right == [1, 2, 0, 0]
    assert score.average.value == pytest.approx(3 / 8)
    assert score.pass_at[2].value == pytest.approx(2 / 4)
    assert list(score.pass_at) == [2]  # no pass@4 with 2 samples
    assert score.unreadable_golds == 1
    assert score.verdicts == {"right": 3, "timed out": 1, "unparseable answer": 1, "unparseable gold": 2, "wrong": 1}
    assert score.cut_share == 0.5
    assert score.mean_tokens == 11.5


def suite(rows: list[list[str]]) -> SuiteScore:
    return score_suite("T", "in distribution", answers(rows), samples=len(rows[0]), pass_at=[2])


def test_an_average_weighs_suites_equally():
    few, many = suite([["right", "right"]]), suite([["wrong", "right"], ["wrong", "wrong"]] * 50)
    # (1 + 1/4) / 2, not (2 + 50) / 202.
    assert group_average([few, many]).value == pytest.approx(0.625)
    assert group_average([few, many], k=2).value == pytest.approx((1 + 0.5) / 2)
    assert group_average([few]) is None
    assert group_average([few, suite([["right"]])], k=2) is None


def test_an_average_of_equal_scores_does_not_have_a_zero_width_interval():
    # Two suites of 10 and 30 unsolved problems: 2^2 / (1/10 + 1/30) = 30 problems.
    average = group_average([suite([["wrong"]] * 10), suite([["wrong"]] * 30)])
    assert (average.low, average.high) == wilson_interval(0.0, 30)
