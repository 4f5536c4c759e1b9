"""A small comparison on a real language model and word problems: `python -m hpt_trl.comparison.language_model`.

The model is first trained with SFT on one-digit problems ("practice"), because otherwise it hardly ever boxes an
answer. The result is the base model of all methods, which then train on two-digit problems, of which some have a
demonstration. All weights are trained: on a CPU, LoRA is slower for a model this small.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import hpt_trl
from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.files import write_atomically
from hpt_trl.common.logs import say
from hpt_trl.comparison.language_model_runs import (
    Run,
    execute,
    held_out_problems,
    practice,
    practice_settings,
    run_settings,
)
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.language_model_table import report_text
from hpt_trl.comparison.methods import METHODS
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.runs import read_result

# What the report needs of a run's result; its settings are the same for all runs.
_REPORTED = (
    "run", "marks", "spent", "reward", "demonstration_share", "training_cpu_seconds", "evaluation_cpu_seconds",
)  # fmt: skip


def compare(args: LanguageModelArguments) -> dict[str, Any]:
    """Practice, search learning rates, run every method with every seed, and return all results as JSON."""
    output = Path(args.output_dir)
    base = output / "practiced"
    _finish([Task("practice", base, partial(practice, args, base))], {base: practice_settings(args)}, args)
    trained = [name for name in args.methods if METHODS[name].phases]
    rates: dict[str, float] = {}
    searched: list[dict[str, Any]] = []
    for is_after_sft in (False, True):
        methods = [name for name in trained if METHODS[name].begins_with_sft == is_after_sft]
        found = _results(search_runs(args, methods, rates), args, base)
        rates |= best_rates(found)
        searched += found
    runs = _results(main_runs(args, rates), args, base)
    return {
        "settings": run_settings(Run("main", "hpt", 0, 0.0), args)
        | {name: getattr(args, name) for name in ("seeds", "search_seeds", "learning_rates")},
        "versions": {"hpt_trl": hpt_trl.__version__}
        | {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
        "practice_cpu_seconds": (read_result(base, practice_settings(args)) or {})["cpu_seconds"],
        "kinds": [problem["kind"] for problem in held_out_problems(args, "main")],
        "learning_rates": rates,
        "search": [
            {name: result[name] for name in ("run", "training_cpu_seconds", "evaluation_cpu_seconds")}
            | {"accuracy": _accuracy(result)}
            for result in searched
        ],
        "runs": [{name: result[name] for name in _REPORTED} for result in runs],
    }


def search_runs(args: LanguageModelArguments, methods: Sequence[str], rates: Mapping[str, float]) -> list[Run]:
    """Every method at every learning rate. One that begins with SFT does so at the learning rate found for SFT."""
    return [
        Run("search", method, seed, rate, _first_rate(method, rates))
        for method in methods
        for rate in args.learning_rates
        for seed in args.search_seeds
    ]


def main_runs(args: LanguageModelArguments, rates: Mapping[str, float]) -> list[Run]:
    """The reported runs, ordered by seed. The base model is the same for every seed, but its samples are not."""
    return [
        Run("main", method, seed, rates.get(method, 0.0), _first_rate(method, rates))
        for seed in args.seeds
        for method in args.methods
    ]


def best_rates(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The learning rate of each method with the best mean accuracy over the search seeds."""
    scores: dict[str, dict[float, list[float]]] = {}
    for result in results:
        run = result["run"]
        scores.setdefault(run["method"], {}).setdefault(run["learning_rate"], []).append(_accuracy(result))
    return {
        method: max(by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]))
        for method, by_rate in scores.items()
    }


def _first_rate(method: str, rates: Mapping[str, float]) -> float | None:
    return rates["sft"] if METHODS[method].begins_with_sft else None


def _accuracy(result: Mapping[str, Any]) -> float:
    right = result["marks"]["steps"]["right"]
    return sum(right) / len(right) / result["settings"]["test_samples"]


def _results(runs: Sequence[Run], args: LanguageModelArguments, base: Path) -> list[dict[str, Any]]:
    """Results of the runs; those that have not finished before are run."""
    output = Path(args.output_dir)
    tasks = [
        Task(run.name, output / run.name, partial(execute, run, args, base / "model", output / run.name))
        for run in runs
    ]
    return _finish(tasks, {output / run.name: run_settings(run, args) for run in runs}, args)


def _finish(
    tasks: Sequence[Task], settings: Mapping[Path, Mapping[str, Any]], args: LanguageModelArguments
) -> list[dict[str, Any]]:
    missing = [task for task in tasks if read_result(task.folder, settings[task.folder]) is None]
    failed = run_tasks(missing, args.processes, report_progress=lambda name: print(f"{name} done", flush=True))
    if failed:
        raise ValueError(
            f"{failed[0].name} failed: see {failed[0].folder / 'log.txt'}. Run the command again to continue after the "
            "last finished run."
        )
    return [read_result(task.folder, settings[task.folder]) or {} for task in tasks]


def main(argv: Sequence[str]) -> None:
    """Run the command line `python -m hpt_trl.comparison.language_model`."""
    prog = "python -m hpt_trl.comparison.language_model"
    # Forks inherit no threads.
    torch.set_num_threads(1)
    with user_errors(prog):
        (args,) = parse((LanguageModelArguments,), argv, prog)
        results = compare(args)
        output = Path(args.output_dir)
        write_atomically(output / "results.json", json.dumps(results))
        write_atomically(output / "README.md", report_text(results))
        say(f"Report: {output / 'README.md'}")


if __name__ == "__main__":
    main(sys.argv[1:])
