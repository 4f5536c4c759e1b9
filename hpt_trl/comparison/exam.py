"""The questions a model is asked, and how many of its answers are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpt_trl.comparison.sampler import draw
from hpt_trl.miniature.families import SUITES, suite_rows
from hpt_trl.verifier.verdicts import final_answer

LONGEST_ANSWER = 64
"""Tokens: the longest demonstration has 54."""

_PROBLEM_SEED = 1


@dataclass(frozen=True)
class Marks:
    """What a model made of an exam.

    Args:
        right: how many of each problem's samples were right, by suite.
        samples: of each problem.
        tokens: mean length of a completion.
        entropy: mean over completions of the policy's entropy in nats a token.
    """

    right: dict[str, list[int]]
    samples: int
    tokens: float
    entropy: float

    def shares(self) -> dict[str, float]:
        """Share of right answers by suite."""
        return {suite: sum(right) / (len(right) * self.samples) for suite, right in self.right.items()}


def is_right(completion: str, solution: str) -> bool:
    """Whether a completion's answer is this integer.

    The answer is the one the verifier takes, the last box after the last thought. Every solution here is a plain
    integer without a sign, so equal text is equal value; the verifier itself, two processes that know LaTeX, would
    take longer than the training step.
    """
    answer = final_answer(completion)
    return answer is not None and answer.isdecimal() and int(answer) == int(solution)


def accuracy(completions: Sequence[str], solution: Sequence[str], **columns: Any) -> list[float]:
    """Reward function: 1 for a right answer, 0 for any other. See `is_right`."""
    return [float(is_right(text, wanted)) for text, wanted in zip(completions, solution)]


class Exam:
    """Problems of every suite that no training data holds.

    Args:
        problems: of each suite.
        samples: of each problem.
        temperature: of the sampling.
        skip: leave out so many problems of each suite, which another exam asks.
    """

    def __init__(self, problems: int, samples: int, temperature: float, skip: int = 0) -> None:
        self.samples, self.temperature = samples, temperature
        self.rows = [
            row for suite in SUITES for row in suite_rows(suite, skip + problems, _PROBLEM_SEED, "test")[skip:]
        ]

    def mark(self, model: Any, tokenizer: Any, seed: int) -> Marks:
        """Ask every problem and count."""
        prompts = [row["prompt"] for row in self.rows for _ in range(self.samples)]
        drawn = draw(model, tokenizer, prompts, temperature=self.temperature, max_new_tokens=LONGEST_ANSWER, seed=seed)
        right: dict[str, list[int]] = {suite: [] for suite in SUITES}
        for place, row in enumerate(self.rows):
            answers = drawn[place * self.samples : (place + 1) * self.samples]
            right[row["suite"]].append(sum(is_right(answer.text, row["solution"]) for answer in answers))
        count = len(drawn)
        tokens, entropy = (sum(getattr(one, name) for one in drawn) / count for name in ("tokens", "entropy"))
        return Marks(right, self.samples, tokens, entropy)
