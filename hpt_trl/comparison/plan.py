"""The runs of a comparison, stage by stage: first the learning rate search, then the reported runs."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hpt_trl.comparison.methods import ABLATIONS, METHODS, WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.regimes import REGIMES
from hpt_trl.comparison.runs import MAP_STAGE, Run, execute, read_result, run_settings
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.statistics import interval
from hpt_trl.miniature.bases import BASES, base_folder, build_base
from hpt_trl.miniature.families import IN_DISTRIBUTION

Rates = Mapping[tuple[str, str], float]
"""Learning rate by model size and method."""


class Comparison:
    """Runs a comparison in its folder and skips what is finished.

    Args:
        args: settings of the comparison.
        report_progress: called with progress messages.
    """

    def __init__(self, args: CompareArguments, report_progress: Callable[[str], None]) -> None:
        self.args, self.report_progress = args, report_progress
        self.folder = Path(args.output_dir)
        self.results: dict[Run, dict[str, Any]] = {}
        self.rates: dict[tuple[str, str], float] = {}

    def base(self, model: str) -> Path:
        """Folder of a base model."""
        return base_folder(model, self.folder / "bases")

    def run(self) -> None:
        """Build the base models, search learning rates and train. Finished runs are reused.

        Raises:
            ValueError: if a run failed.
        """
        self._build_bases()
        for methods in searches(self.args):
            self._run_all(search_runs(self.args, methods, self.rates))
            self.rates |= best_rates(self.results, methods)
        self._run_all(main_runs(self.args, self.rates))
        if self.args.ablations and "hpt" in self.args.methods:
            self._run_all(ablation_runs(self.args, self.rates))
        if self.args.textbook and any(name not in WITHOUT_DEMONSTRATIONS for name in self.args.methods):
            self._run_all(textbook_runs(self.args, self.rates))
        self._run_all(map_runs(self.args, self.rates))

    def _build_bases(self) -> None:
        models = dict.fromkeys([*self.args.models, *(REGIMES[name].model for name in self.args.regimes)])
        missing = [name for name in models if name and not self.base(name).exists()]
        tasks = [
            Task(
                f"base {name}",
                self.folder / "bases" / f"{name}.build",
                partial(build_base, BASES[name], self.base(name)),
            )
            for name in missing
        ]
        self._raise_if_failed(run_tasks(tasks, self.args.processes, self.report_progress))

    def _run_all(self, runs: list[Run]) -> None:
        folders = {run: self.folder / "runs" / run.name for run in runs}
        settings = {run: run_settings(run, self.args) for run in runs}
        missing = [run for run in runs if read_result(folders[run], settings[run]) is None]
        tasks = [
            Task(run.name, folders[run], partial(execute, run, self.args, self.base(run.model), folders[run]))
            for run in missing
        ]
        remaining = len(tasks)

        def report_done(name: str) -> None:
            nonlocal remaining
            remaining -= 1
            self.report_progress(f"{name} done, {remaining} remaining")

        self._raise_if_failed(run_tasks(tasks, self.args.processes, report_done))
        self.results |= {run: read_result(folders[run], settings[run]) or {} for run in runs}

    def _raise_if_failed(self, failed: list[Task]) -> None:
        if failed:
            raise ValueError(
                f"{len(failed)} of the runs failed, first {failed[0].name}: see {failed[0].folder / 'log.txt'}. "
                "Run the command again to continue with the missing runs."
            )


def size_of(model: str) -> str:
    """The model's width. Models of the same width share their learning rates."""
    return str(BASES[model].hidden_size)


def searches(args: CompareArguments) -> list[list[str]]:
    """Methods in the order of their learning rate searches: those that begin with SFT need that of SFT first."""
    trained = [name for name in args.methods if METHODS[name].phases]
    after_sft = [name for name in trained if METHODS[name].begins_with_sft]
    others = [name for name in trained if name not in after_sft]
    return [names for names in (others, after_sft) if names]


def search_runs(args: CompareArguments, methods: list[str], rates: Rates) -> list[Run]:
    """Every method at every learning rate, on the first model of each size."""
    models = {size_of(name): name for name in reversed(args.models)}.values()
    return [
        Run("search", model, method, seed, rate, _first_rate(method, model, rates))
        for model in models
        for method in methods
        for rate in args.learning_rates
        for seed in args.search_seeds
    ]


def best_rates(results: Mapping[Run, Mapping[str, Any]], methods: list[str]) -> dict[tuple[str, str], float]:
    """The learning rate with the best final in-distribution accuracy over the search seeds, by size and method."""
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run, result in results.items():
        if run.stage == "search" and run.method in methods:
            by_rate = scores.setdefault((size_of(run.model), run.method), {})
            by_rate.setdefault(run.learning_rate, []).append(search_score(result))
    return {key: max(by_rate, key=lambda rate: interval(by_rate[rate]).mean) for key, by_rate in scores.items()}


def search_score(result: Mapping[str, Any]) -> float:
    """Mean in-distribution accuracy of the last two curve points. One alone is too noisy to select a learning rate."""
    accuracies = [point["accuracy"][suite] for point in result["curve"][-2:] for suite in IN_DISTRIBUTION]
    return sum(accuracies) / len(accuracies)


def main_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """The reported runs, ordered by seed, so that an unfinished comparison already has complete seeds."""
    runs = []
    for seed in args.seeds:
        for model in args.models:
            has_passes = model == args.models[0] and args.pass_problems > 0
            for method in args.methods:
                rate = rates.get((size_of(model), method), 0.0)
                runs.append(Run("main", model, method, seed, rate, _first_rate(method, model, rates), has_passes))
    return runs


def ablation_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """HPT with one setting changed, at HPT's learning rate."""
    model = args.models[0]
    rate = rates[size_of(model), "hpt"]
    return [Run("ablation", model, name, seed, rate) for seed in args.seeds for name in ABLATIONS]


def textbook_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """Methods that use demonstrations, on textbook demonstrations, with the learning rates of the main runs."""
    return [run for seed in args.seeds for run in _runs_of("textbook", args, rates, seed)]


def map_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """Methods in every regime, with the learning rates of the main runs.

    Those that use no demonstrations run only where the base model is another: elsewhere their runs are the main runs.
    """
    regimes = [(f"{MAP_STAGE}{name}", REGIMES[name].model) for name in args.regimes]
    return [run for seed in args.seeds for stage, model in regimes for run in _runs_of(stage, args, rates, seed, model)]


def _runs_of(stage: str, args: CompareArguments, rates: Rates, seed: int, other_model: str | None = None) -> list[Run]:
    """One run of every method that uses demonstrations, on the first model; of every method on another model."""
    model = other_model or args.models[0]
    methods = [name for name in args.methods if other_model or name not in WITHOUT_DEMONSTRATIONS]
    return [
        Run(stage, model, name, seed, rates.get((size_of(model), name), 0.0), _first_rate(name, model, rates))
        for name in methods
    ]


def _first_rate(method: str, model: str, rates: Rates) -> float | None:
    """Learning rate of the SFT that a method begins with: the one found for SFT. None if it does not."""
    return rates[size_of(model), "sft"] if METHODS[method].begins_with_sft else None
