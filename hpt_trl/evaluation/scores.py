"""Computes avg@k and unbiased pass@k from verdicts, with confidence intervals over problems."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RIGHT = "right"
UNPARSEABLE_GOLD = "unparseable gold"

RESAMPLES = 2000
"""Bootstrap resamples per interval; its ends vary by about 5% of its width between seeds."""

INTERVALS = "Wilson's where each problem counts 0 or 1, otherwise bootstrap over problems"
"""Which 95% interval `estimate` computes."""


@dataclass(frozen=True)
class Answer:
    """One completion and its verdict.

    Args:
        problem: index of the problem.
        sample: index of the sample of that problem.
        text: the completion.
        tokens: length of the completion in tokens.
        cut: whether the completion was truncated at the maximum length.
        verdict: the verifier's verdict.
        logp: log-probability of the completion, if it was computed.
    """

    problem: int
    sample: int
    text: str
    tokens: int
    cut: bool
    verdict: str
    logp: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A fraction in [0, 1] and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class SuiteScore:
    """The scores of one suite, and the counts behind them.

    Args:
        title: title of the suite.
        group: group of suites it is averaged with, or "".
        right: number of correct samples of each problem.
        samples: number of completions per problem.
        average: avg@k, with k = samples.
        pass_at: pass@k for each k that the number of samples allows.
        verdicts: number of completions by verdict.
        unreadable_golds: number of problems whose solution the verifier cannot parse; they count as unsolved.
        cut_share: fraction of completions that were truncated at the maximum length, in [0, 1].
        mean_tokens: mean completion length in tokens.
    """

    title: str
    group: str
    right: list[int]
    samples: int
    average: Estimate
    pass_at: dict[int, Estimate]
    verdicts: dict[str, int]
    unreadable_golds: int
    cut_share: float
    mean_tokens: float


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that at least one of k samples, drawn without replacement from `samples`, is correct.

    Args:
        samples: number of completions of the problem (n).
        right: number of correct ones among them (c).
        k: number of completions drawn, from 1 to `samples`.

    Returns:
        1 - C(n - c, k) / C(n, k), computed as a product, because the binomials can overflow.

    Raises:
        ValueError: if the counts are inconsistent.

    Source: arXiv 2107.03374, eq. 1.

    Example:
        >>> pass_at_k(samples=4, right=1, k=2)  # 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6
        0.5
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs k from 1 to {samples}, the number of samples per problem: draw more samples.")
    if not 0 <= right <= samples:
        raise ValueError(f"{right} of {samples} samples cannot be correct.")
    if samples - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(samples - right + 1, samples + 1)))


def wilson_interval(share: float, problems: int) -> tuple[float, float]:
    """95% interval of a fraction of `problems` independent problems.

    `scipy.stats.binomtest` computes it from integer counts only; here, `share * problems` need not be an integer.

    Source: Wilson, "Probable inference", JASA 22 (1927).

    Example:
        >>> low, high = wilson_interval(0.0, problems=200)
        >>> f"{low:.1%} to {high:.1%}"
        '0.0% to 1.9%'
    """
    z = 1.96
    center = (share + z**2 / (2 * problems)) / (1 + z**2 / problems)
    half_width = z * math.sqrt(share * (1 - share) / problems + z**2 / (4 * problems**2)) / (1 + z**2 / problems)
    return max(0.0, center - half_width), min(1.0, center + half_width)


def estimate(shares_P: np.ndarray, seed: int) -> Estimate:
    """Mean over problems, with its 95% interval over problems.

    Where each problem counts 0 or 1, as with one sample per problem, it is Wilson's. Otherwise it is that of a
    percentile bootstrap over problems. If all of them have the same score, resampling shows no spread, although there
    is uncertainty: in this case, too, it is Wilson's, which is conservative for scores strictly between 0 and 1.

    Args:
        shares_P: (P,) score of each problem, in [0, 1].
        seed: seed of the resampling.

    Example:
        >>> print(estimate(np.array([1.0, 0.0, 1.0, 1.0]), seed=0))
        75.0% [30.1%, 95.4%]
        >>> print(estimate(np.array([1.0, 0.5, 0.0, 1.0]), seed=0))
        62.5% [25.0%, 100.0%]
    """
    value = float(shares_P.mean())
    if np.ptp(shares_P) == 0.0 or np.isin(shares_P, (0.0, 1.0)).all():
        return Estimate(value, *wilson_interval(value, len(shares_P)))
    low, high = np.percentile(bootstrap_means(shares_P, seed), [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def bootstrap_means(shares_P: np.ndarray, seed: int) -> np.ndarray:
    """Means of `RESAMPLES` resamples of P problems with replacement: (RESAMPLES,).

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13.
    """
    problems = len(shares_P)
    indices = np.random.default_rng(seed).integers(problems, size=(RESAMPLES, problems))
    return shares_P[indices].mean(axis=1)


def solved_shares(right_P: Sequence[int], samples: int, k: int) -> np.ndarray:
    """pass@k of every problem: (P,). For k = 1, this is the fraction of correct samples."""
    return np.array([pass_at_k(samples, right, k) for right in right_P])


def score_suite(
    title: str, group: str, answers: Sequence[Answer], samples: int, pass_at: Sequence[int], seed: int = 0
) -> SuiteScore:
    """Score the answers to one suite.

    Args:
        title: title of the suite.
        group: group of suites it is averaged with, or "".
        answers: `samples` answers per problem, in any order.
        samples: number of completions per problem.
        pass_at: values of k for pass@k; those above `samples` are left out.
        seed: seed of the bootstrap.
    """
    problems = len(answers) // samples
    right = Counter(answer.problem for answer in answers if answer.verdict == RIGHT)
    right_P = [right[problem] for problem in range(problems)]
    return SuiteScore(
        title=title,
        group=group,
        right=right_P,
        samples=samples,
        average=estimate(solved_shares(right_P, samples, 1), seed),
        pass_at={k: estimate(solved_shares(right_P, samples, k), seed) for k in pass_at if k <= samples},
        verdicts=dict(sorted(Counter(str(answer.verdict) for answer in answers).items())),
        unreadable_golds=len({answer.problem for answer in answers if answer.verdict == UNPARSEABLE_GOLD}),
        cut_share=sum(answer.cut for answer in answers) / len(answers),
        mean_tokens=sum(answer.tokens for answer in answers) / len(answers),
    )


def group_average(scores: Sequence[SuiteScore], k: int = 1, seed: int = 0) -> Estimate | None:
    """Mean of the suites' pass@k, with equal weights; problems are resampled within their suite.

    Args:
        scores: scores of the suites of a group.
        k: the k of pass@k; 1 for avg@k.
        seed: seed of the bootstrap.

    Returns:
        The average; None if a suite has fewer than k samples, or there are fewer than two suites.
    """
    if len(scores) < 2 or any(k > score.samples for score in scores):
        return None
    shares = [solved_shares(score.right, score.samples, k) for score in scores]
    value = float(np.mean([share_P.mean() for share_P in shares]))
    # A separate seed per suite: with the same indices, suites of equal size would appear to be correlated.
    means = np.mean([bootstrap_means(share_P, seed + number) for number, share_P in enumerate(shares)], axis=0)
    if np.ptp(means) == 0.0:
        # The mean of S suites of P_i problems has the variance of a mean over S^2 / sum(1 / P_i) problems.
        problems = round(len(shares) ** 2 / sum(1 / len(share_P) for share_P in shares))
        return Estimate(value, *wilson_interval(value, problems))
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def by_group(scores: Mapping[str, SuiteScore]) -> dict[str, list[SuiteScore]]:
    """The suites of each group, in their original order."""
    groups: dict[str, list[SuiteScore]] = {}
    for score in scores.values():
        groups.setdefault(score.group, []).append(score)
    return groups
