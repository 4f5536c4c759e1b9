"""Which runs a comparison needs, stage by stage: first the search for learning rates, then what is reported."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hpt_trl.comparison.methods import ABLATIONS, METHODS, WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.runs import Run, execute, read_result, run_settings
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.statistics import interval
from hpt_trl.miniature.bases import BASES, base_folder, build_base
from hpt_trl.miniature.families import IN_DISTRIBUTION

Rates = Mapping[tuple[str, str], float]
"""Learning rate by size of the model and method."""


class Comparison:
    """A comparison in its folder: what is done, and what is to do.

    Args:
        args: what was asked for.
        tell: where messages go.
    """

    def __init__(self, args: CompareArguments, tell: Callable[[str], None]) -> None:
        self.args, self.tell = args, tell
        self.folder = Path(args.output_dir)
        self.results: dict[Run, dict[str, Any]] = {}
        self.rates: dict[tuple[str, str], float] = {}

    def base(self, model: str) -> Path:
        """Folder of a base model."""
        return base_folder(model, self.folder / "bases")

    def run(self) -> None:
        """Build bases, search, train: what is there already is taken as it is.

        Raises:
            ValueError: if a run failed.
        """
        self._build_bases()
        for methods in searches(self.args):
            self._do(search_runs(self.args, methods, self.rates))
            self.rates |= best_rates(self.results, methods)
        self._do(main_runs(self.args, self.rates))
        if self.args.ablations and "hpt" in self.args.methods:
            self._do(ablation_runs(self.args, self.rates))
        if self.args.textbook and any(name not in WITHOUT_DEMONSTRATIONS for name in self.args.methods):
            self._do(textbook_runs(self.args, self.rates))

    def _build_bases(self) -> None:
        missing = [name for name in self.args.models if not self.base(name).exists()]
        tasks = [
            Task(
                f"base {name}",
                self.folder / "bases" / f"{name}.build",
                partial(build_base, BASES[name], self.base(name)),
            )
            for name in missing
        ]
        self._all_well(run_tasks(tasks, self.args.processes, self.tell))

    def _do(self, runs: list[Run]) -> None:
        folders = {run: self.folder / "runs" / run.name for run in runs}
        settings = {run: run_settings(run, self.args) for run in runs}
        missing = [run for run in runs if read_result(folders[run], settings[run]) is None]
        tasks = [
            Task(run.name, folders[run], partial(execute, run, self.args, self.base(run.model), folders[run]))
            for run in missing
        ]
        # Each task is told with how many of this stage are still to come.
        left = len(tasks)

        def told(name: str) -> None:
            nonlocal left
            left -= 1
            self.tell(f"{name} done, {left} to go")

        self._all_well(run_tasks(tasks, self.args.processes, told))
        self.results |= {run: read_result(folders[run], settings[run]) or {} for run in runs}

    def _all_well(self, failed: list[Task]) -> None:
        if failed:
            raise ValueError(
                f"{len(failed)} of the runs failed, the first of them {failed[0].name}: see "
                f"{failed[0].folder / 'log.txt'}. Started again, only what is missing is run."
            )


def size_of(model: str) -> str:
    """What models share that share a learning rate: their width."""
    return str(BASES[model].hidden_size)


def searches(args: CompareArguments) -> list[list[str]]:
    """Methods whose learning rates are searched together; SFT then GRPO needs SFT's first."""
    trained = [name for name in args.methods if METHODS[name].phases]
    together = [name for name in trained if len(METHODS[name].phases) == 1]
    return [stage for stage in (together, [name for name in trained if name not in together]) if stage]


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
    """The learning rate at which a method ends best in distribution, over the seeds of the search."""
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for run, result in results.items():
        if run.stage == "search" and run.method in methods:
            by_rate = scores.setdefault((size_of(run.model), run.method), {})
            by_rate.setdefault(run.learning_rate, []).append(search_score(result))
    return {key: max(by_rate, key=lambda rate: interval(by_rate[rate]).mean) for key, by_rate in scores.items()}


def search_score(result: Mapping[str, Any]) -> float:
    """Mean accuracy in distribution over the last two measurements: the exam is small."""
    last = [point["accuracy"] for point in result["curve"][-2:]]
    return sum(accuracy[suite] for accuracy in last for suite in IN_DISTRIBUTION) / (len(last) * len(IN_DISTRIBUTION))


def main_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """What is reported. The longest first would be best for the cores; by seed is best for a look half-way."""
    runs = []
    for seed in args.seeds:
        for model in args.models:
            has_passes = model == args.models[0] and args.pass_problems > 0
            for method in args.methods:
                rate = rates.get((size_of(model), method), 0.0)
                runs.append(Run("main", model, method, seed, rate, _first_rate(method, model, rates), has_passes))
    return runs


def ablation_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """HPT with one thing changed, at HPT's learning rate."""
    model = args.models[0]
    rate = rates[size_of(model), "hpt"]
    return [Run("ablation", model, name, seed, rate) for seed in args.seeds for name in ABLATIONS]


def textbook_runs(args: CompareArguments, rates: Rates) -> list[Run]:
    """Methods that learn from demonstrations, on a textbook's, with the learning rates found without one."""
    model = args.models[0]
    methods = [name for name in args.methods if name not in WITHOUT_DEMONSTRATIONS]
    return [
        Run("textbook", model, name, seed, rates[size_of(model), name], _first_rate(name, model, rates))
        for seed in args.seeds
        for name in methods
    ]


def _first_rate(method: str, model: str, rates: Rates) -> float | None:
    """Where SFT comes first, at the rate that was found for SFT."""
    return rates[size_of(model), "sft"] if len(METHODS[method].phases) > 1 else None
