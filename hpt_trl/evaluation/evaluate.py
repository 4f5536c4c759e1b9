"""Evaluates a model: avg@k and pass@k on the paper's benchmark suites or on your own problems."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hpt_trl.common.files import write_atomically
from hpt_trl.common.masking import masked
from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.engines import (
    Engine,
    Sampling,
    TransformersEngine,
    VLLMEngine,
    context_length,
    load_tokenizer,
    resolve_checkpoint,
)
from hpt_trl.evaluation.sampling import Task, completion_length, load_tasks, run_settings, sample_task
from hpt_trl.evaluation.score_table import plot_scores
from hpt_trl.evaluation.scores import Answer, SuiteScore, by_group, group_average, score_suite


@dataclass(frozen=True)
class Evaluation:
    """The settings and results of an evaluation; the keys of the dictionaries are names of suites.

    Args:
        settings: arguments, versions, device and weights.
        pass_at: values of k for pass@k.
        tasks: problems and prompts.
        sampling: sampling parameters.
        answers: every completion and its verdict, in the order of generation.
        scores: the scores.
        notes: what was left out.
    """

    settings: dict[str, Any]
    pass_at: list[int]
    tasks: dict[str, Task]
    sampling: dict[str, Sampling]
    answers: dict[str, list[Answer]]
    scores: dict[str, SuiteScore]
    notes: list[str]

    @property
    def title(self) -> str:
        """The model and its sampling parameters."""
        settings = self.settings["settings"]
        return f"{settings['model']}, temperature {settings['temperature']:g}, top-p {settings['top_p']:g}"

    def as_json(self) -> str:
        """Settings, versions, scores, and every prompt, completion and verdict as JSON."""
        averages = {
            group: {f"pass@{k}": asdict(average) for k in [1, *self.pass_at] if (average := group_average(members, k))}
            for group, members in by_group(self.scores).items()
            if group
        }
        suites = {
            name: asdict(score) | asdict(self.sampling[name]) | {"problems": self._rows(name)}
            for name, score in self.scores.items()
        }
        content = self.settings | {"notes": self.notes, "averages": averages, "suites": suites}
        return json.dumps(masked(content), indent=1)

    def _rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [problem | {"completions": []} for problem in self.tasks[name].problems]
        for answer in sorted(self.answers[name], key=lambda answer: (answer.problem, answer.sample)):
            completion = {"text": answer.text, "tokens": answer.tokens, "cut": answer.cut, "verdict": answer.verdict}
            rows[answer.problem]["completions"].append(completion)
        return rows


def evaluate(args: EvaluateArguments) -> Evaluation:
    """Load problems and model, sample, judge and score; resume from the answers in the output folder."""
    checkpoint = resolve_checkpoint(args.model, args.base_model)
    tokenizer = load_tokenizer(checkpoint)
    tasks, notes = load_tasks(args, tokenizer)
    pass_at = chosen_pass_at(args.pass_at, [task.samples for task in tasks.values()])
    context = context_length(checkpoint)
    sampling = {
        name: Sampling(args.temperature, args.top_p, completion_length(args, task, context))
        for name, task in tasks.items()
    }
    settings = run_settings(args, checkpoint)

    @cache
    def engine() -> Engine:
        # Loaded only if a batch is missing: a finished evaluation is scored again without the model.
        if args.engine == "transformers":
            return TransformersEngine(checkpoint, tokenizer, args.dtype)
        return VLLMEngine(
            checkpoint,
            tokenizer,
            args.dtype,
            args.tensor_parallel_size,
            args.gpu_memory_utilization,
            args.max_model_len,
        )

    answers = {name: sample_task(task, engine, sampling[name], settings, args) for name, task in tasks.items()}
    scores = {
        name: score_suite(task.suite.title, task.suite.group, answers[name], task.samples, pass_at, args.seed)
        for name, task in tasks.items()
    }
    return Evaluation(settings, pass_at, tasks, sampling, answers, scores, notes)


def chosen_pass_at(requested: Sequence[int] | None, samples: Sequence[int]) -> list[int]:
    """Values of k for pass@k: the requested ones, or the powers of two up to the largest number of samples.

    Raises:
        ValueError: if no suite has enough samples for a requested k.
    """
    most = max(samples)
    if requested is None:
        return [2**power for power in range(1, most.bit_length()) if 2**power <= most]
    if max(requested, default=0) > most:
        raise ValueError(
            f"pass@{max(requested)} needs at least {max(requested)} samples per problem, got {most}: raise --samples."
        )
    # pass@1 is avg@k.
    return sorted(set(requested) - {1})


def run(args: EvaluateArguments) -> Evaluation:
    """Evaluate, and write the results to `output`.

    Raises:
        ValueError: if another evaluation is writing to the same folder.
    """
    folder = args.output_folder
    if folder is None:
        result = evaluate(args)
        if args.output:
            write_atomically(Path(args.output), result.as_json())
        return result
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two evaluations at the same time would write answers twice. The lock is released when the process ends.
        with FileLock(folder / ".lock", timeout=0):
            result = evaluate(args)
            write_atomically(folder / "results.json", result.as_json())
            plot_scores(result.scores, folder / "scores.png", result.title)
    except Timeout:
        raise ValueError(
            f"Another evaluation is writing to {str(folder)!r}. Wait for it, or pass another output folder."
        ) from None
    return result
