"""All runs of a comparison as one JSON, and the scores that tables and figures show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import hpt_trl
from hpt_trl.comparison.held_out_eval import HeldOutEval
from hpt_trl.comparison.methods import ABLATIONS, METHODS
from hpt_trl.comparison.runs import TRAINER, Run
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.statistics import Interval, holm, interval, paired_p
from hpt_trl.durability.gate_history import FILE_NAME as GATE_FILE
from hpt_trl.evaluation.scores import pass_at_k
from hpt_trl.miniature.families import IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, SUITES

Summary = Mapping[str, Any]

REFERENCES = ("warmup_hpt", "hpt")
"""The method that the others are compared with: the first of these that is there."""

BUDGETS = {"steps": "equal optimizer steps", "compute": "equal compute"}
AVERAGES = {"in": IN_DISTRIBUTION, "out": OUT_OF_DISTRIBUTION}
"""Columns of averages, and the suites they average over."""


def summarize(
    args: CompareArguments, results: Mapping[Run, Mapping[str, Any]], rates: Mapping[tuple[str, str], float], runs: Path
) -> dict[str, Any]:
    """Everything the report is made from, as JSON.

    Args:
        args: settings of the comparison.
        results: results of all runs.
        rates: the best learning rates, by size and method.
        runs: folder of all runs.
    """
    packages = ("torch", "transformers", "trl", "accelerate")
    return {
        "settings": asdict(args),
        "versions": {"hpt_trl": hpt_trl.__version__, **{name: metadata.version(name) for name in packages}},
        "learning_rates": {f"{size} {method}": rate for (size, method), rate in rates.items()},
        "seconds": round(sum(result["seconds"] for result in results.values())),
        "easy": easy_problems(args),
        "runs": [_short(run, result) for run, result in results.items()],
        "gates": _gates(results, runs),
    }


def easy_problems(args: CompareArguments) -> dict[str, str]:
    """One digit per test problem, by suite: 1 if pretraining contained such problems (easy), 0 if not (hard)."""
    rows = HeldOutEval(args.test_problems, args.test_samples, args.temperature, skip=args.curve_problems).rows
    return {suite: "".join(str(int(row["is_easy"])) for row in rows if row["suite"] == suite) for suite in SUITES}


def _short(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run that tables and figures need. Counts of correct samples become text, one digit per problem."""
    curve = [
        {name: point[name] for name in ("step", "compute")}
        | {name: round(point[name], 3) for name in ("tokens", "entropy")}
        | {name: round(_mean(point["accuracy"], suites), 4) for name, suites in AVERAGES.items()}
        for point in result["curve"]
    ]
    eval_results = result["marks"]
    right = {
        budget: {suite: "".join(map(str, counts)) for suite, counts in eval_results[budget]["right"].items()}
        for budget in BUDGETS
        if budget in eval_results
    }
    return {
        "run": asdict(run),
        "right": right,
        "passes": eval_results.get("passes", {}).get("right"),
        "rollouts": eval_results.get("rollouts", {}).get("right"),
        "spent": result["spent"],
        "curve": curve,
        "demonstration_share": [round(share, 4) for share in result["demonstration_share"]],
        "seconds": result["seconds"],
    }


def _gates(results: Mapping[Run, Mapping[str, Any]], runs: Path) -> dict[str, Any]:
    """Solve rate of every training prompt at every visit, in HPT's first run on each model."""
    first: dict[str, Run] = {}
    for run in results:
        if run.stage == "main" and run.method == "hpt":
            first.setdefault(run.model, run)
    gates = {}
    for model, run in first.items():
        rows = pd.read_parquet(runs / run.name / TRAINER / GATE_FILE)
        rows["visit"] = rows.groupby("prompt_id").cumcount()
        table = rows.pivot(index="prompt_id", columns="visit", values="solve_rate")
        # Sorted so that the heat map shows prompts of similar solve rate together.
        table = table.loc[table.mean(axis=1).sort_values().index]
        gates[model] = [[None if rate != rate else rate for rate in row] for row in table.to_numpy().tolist()]
    return gates


def _mean(shares: Mapping[str, float], suites: Iterable[str]) -> float:
    values = [shares[suite] for suite in suites]
    return sum(values) / len(values)


def _share(summary: Summary, suite: str, counts: str, part: str | None, k: int) -> float:
    """Mean pass@k of a suite's problems, or of its easy or hard part; for k = 1, the fraction of correct samples."""
    flags = {None: "01", "easy": "1", "hard": "0"}[part]
    correct = [int(count) for count, flag in zip(counts, summary["easy"][suite]) if flag in flags]
    samples = summary["settings"]["test_samples"]
    if not correct:
        return math.nan
    if k == 1:
        return sum(correct) / (len(correct) * samples)
    return sum(pass_at_k(samples, right, k) for right in correct) / len(correct)


class Scores:
    """Accuracy of one stage's runs at one budget.

    Args:
        summary: summary of a comparison.
        budget: a key of `BUDGETS`.
        models: models to average over.
        stage: stage of the runs.
        also: methods whose runs of stage "main" are included too.
        part: "easy" or "hard" for a part of the problems; None for all.
        k: of pass@k, which takes the place of accuracy if k is above 1.
    """

    def __init__(
        self,
        summary: Summary,
        budget: str,
        models: Sequence[str],
        stage: str = "main",
        also: Sequence[str] = (),
        part: str | None = None,
        k: int = 1,
    ) -> None:
        self.models = list(models)
        self._shares: dict[tuple[str, str, int], dict[str, float]] = {}
        for entry in summary["runs"]:
            run = entry["run"]
            is_counted = run["stage"] == stage or (run["stage"] == "main" and run["method"] in also)
            if is_counted and budget in entry["right"]:
                counts = entry["right"][budget]
                shares = {suite: _share(summary, suite, text, part, k) for suite, text in counts.items()}
                shares |= {name: _mean(shares, suites) for name, suites in AVERAGES.items()}
                self._shares[run["method"], run["model"], run["seed"]] = shares
        names = [*METHODS, *ABLATIONS]
        self.methods = sorted({method for method, _, _ in self._shares}, key=names.index)
        # Only seeds that all methods have, because the tests are paired by seed.
        self.seeds: list[int] = [
            seed
            for seed in summary["settings"]["seeds"]
            if all((method, model, seed) in self._shares for method in self.methods for model in self.models)
        ]

    def by_seed(self, method: str, column: str) -> list[float]:
        """A method's accuracy for each seed.

        Args:
            method: one of `methods`.
            column: a suite, or a key of `AVERAGES`.
        """
        return [
            sum(self._shares[method, model, seed][column] for model in self.models) / len(self.models)
            for seed in self.seeds
        ]

    def interval(self, method: str, column: str) -> Interval:
        """Mean and 95% confidence interval over seeds."""
        return interval(self.by_seed(method, column))

    @property
    def reference(self) -> str | None:
        """The method that the others are compared with: HPT, after its SFT warm-up if there is one."""
        return next((method for method in REFERENCES if method in self.methods), None)

    def differences(self, method: str, column: str, reference: str | None = None) -> list[float]:
        """The accuracy of the reference, or of another method in its place, minus that of a method, for each seed."""
        own = self.by_seed(reference or str(self.reference), column)
        return [score - other for score, other in zip(own, self.by_seed(method, column))]

    def p_values(self, column: str, reference: str | None = None) -> dict[str, float]:
        """p-value of each difference to the reference: t test paired by seed, Holm's correction over methods."""
        others = [method for method in self.methods if method not in (reference or self.reference, "base")]
        return holm({method: paired_p(self.differences(method, column, reference)) for method in others})
