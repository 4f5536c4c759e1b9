"""Evaluation on held-out problems: which are asked, and how many samples are correct."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpt_trl.comparison.sampler import sample
from hpt_trl.miniature.families import SUITES, suite_rows
from hpt_trl.verifier.verdicts import final_answer

MAX_COMPLETION_LENGTH = 64
"""Tokens. The longest demonstration has 54."""

_PROBLEM_SEED = 1


@dataclass(frozen=True)
class EvalResult:
    """Result of evaluating a model on held-out problems. Field names are keys of `result.json`.

    Args:
        right: number of correct samples of each problem, by suite.
        samples: samples per problem.
        tokens: mean length of a completion.
        entropy: mean over completions of the policy's entropy, in nats per token.
    """

    right: dict[str, list[int]]
    samples: int
    tokens: float
    entropy: float

    def accuracy(self) -> dict[str, float]:
        """Fraction of correct samples, by suite."""
        return {suite: sum(right) / (len(right) * self.samples) for suite, right in self.right.items()}


def is_correct(completion: str, solution: str) -> bool:
    """Whether the final answer of a completion equals an integer solution.

    The final answer is extracted as the verifier does it: the last box after the last thought. All solutions here are
    plain integers without a sign, so comparing integers is enough. The full verifier runs two processes that parse
    LaTeX and would take longer than the training step.
    """
    answer = final_answer(completion)
    return answer is not None and answer.isdecimal() and int(answer) == int(solution)


def accuracy_reward(completions: Sequence[str], solution: Sequence[str], **columns: Any) -> list[float]:
    """Reward function: 1 for a correct answer, 0 otherwise. See `is_correct`."""
    return [float(is_correct(text, expected)) for text, expected in zip(completions, solution)]


class HeldOutEval:
    """Evaluation on problems of every suite that are not in any training data.

    Args:
        problems: problems per suite.
        samples: samples per problem.
        temperature: sampling temperature.
        skip: number of problems per suite to skip, because another evaluation uses them.
    """

    def __init__(self, problems: int, samples: int, temperature: float, skip: int = 0) -> None:
        self.samples, self.temperature = samples, temperature
        self.rows = [
            row for suite in SUITES for row in suite_rows(suite, skip + problems, _PROBLEM_SEED, "test")[skip:]
        ]

    def evaluate(self, model: Any, tokenizer: Any, seed: int) -> EvalResult:
        """Sample every problem and count the correct samples."""
        prompts = [row["prompt"] for row in self.rows for _ in range(self.samples)]
        completions = sample(
            model,
            tokenizer,
            prompts,
            temperature=self.temperature,
            max_new_tokens=MAX_COMPLETION_LENGTH,
            seed=seed,
        )
        right: dict[str, list[int]] = {suite: [] for suite in SUITES}
        for index, row in enumerate(self.rows):
            group = completions[index * self.samples : (index + 1) * self.samples]
            right[row["suite"]].append(sum(is_correct(completion.text, row["solution"]) for completion in group))
        tokens = sum(completion.tokens for completion in completions) / len(completions)
        entropy = sum(completion.entropy for completion in completions) / len(completions)
        return EvalResult(right, self.samples, tokens, entropy)
