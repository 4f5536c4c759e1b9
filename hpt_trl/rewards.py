"""Reward functions, and the verdict they share."""

from hpt_trl.verifier.answers.choices import final_choice, letter_of
from hpt_trl.verifier.verdicts import (
    Completion,
    accuracy_reward,
    completion_text,
    final_answer,
    format_reward,
    judge,
    shared_grader,
)

__all__ = [
    "Completion",
    "accuracy_reward",
    "completion_text",
    "final_answer",
    "final_choice",
    "format_reward",
    "judge",
    "letter_of",
    "shared_grader",
]
