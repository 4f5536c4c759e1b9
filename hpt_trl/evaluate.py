"""Evaluate a model from Python."""

from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.evaluate import Evaluation, evaluate

__all__ = ["EvaluateArguments", "Evaluation", "evaluate"]
