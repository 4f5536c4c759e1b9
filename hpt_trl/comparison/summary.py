"""All runs of a comparison in one JSON, and the numbers that tables and figures are made of."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import hpt_trl
from hpt_trl.comparison.exam import Exam
from hpt_trl.comparison.methods import ABLATIONS, METHODS
from hpt_trl.comparison.runs import Run
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.statistics import Interval, holm, interval, paired_p
from hpt_trl.durability.gate_history import FILE_NAME as GATE_FILE
from hpt_trl.miniature.families import IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, SUITES

Summary = Mapping[str, Any]

BUDGETS = {"steps": "equal optimizer steps", "compute": "equal compute"}
AVERAGES = {"in": IN_DISTRIBUTION, "out": OUT_OF_DISTRIBUTION}
"""Columns of averages, and the suites they are taken over."""


def summarize(
    args: CompareArguments, results: Mapping[Run, Mapping[str, Any]], rates: Mapping[tuple[str, str], float], runs: Path
) -> dict[str, Any]:
    """Everything the report says, in JSON's types.

    Args:
        args: of the comparison.
        results: of every run.
        rates: the learning rates found, by size and method.
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
    """Of each problem of the table's exam, by suite: 1 if pretraining holds such, 0 if it is of the hard part."""
    rows = Exam(args.test_problems, args.test_samples, args.temperature, skip=args.curve_problems).rows
    return {suite: "".join(str(int(row["is_easy"])) for row in rows if row["suite"] == suite) for suite in SUITES}


def _short(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """A run without what no table and no figure shows. Counts of right samples, a digit a problem, become text."""
    curve = [
        {name: point[name] for name in ("step", "compute")}
        | {name: round(point[name], 3) for name in ("tokens", "entropy")}
        | {name: round(_mean(point["accuracy"], suites), 4) for name, suites in AVERAGES.items()}
        for point in result["curve"]
    ]
    marks = result["marks"]
    right = {
        budget: {suite: "".join(map(str, counts)) for suite, counts in marks[budget]["right"].items()}
        for budget in BUDGETS
        if budget in marks
    }
    return {
        "run": asdict(run),
        "right": right,
        "passes": marks.get("passes", {}).get("right"),
        "rollouts": marks.get("rollouts", {}).get("right"),
        "spent": result["spent"],
        "curve": curve,
        "demonstration_share": [round(share, 4) for share in result["demonstration_share"]],
        "seconds": result["seconds"],
    }


def _gates(results: Mapping[Run, Mapping[str, Any]], runs: Path) -> dict[str, Any]:
    """Solve rate of every training prompt at every visit, of HPT's first run on each model."""
    first: dict[str, Run] = {}
    for run in results:
        if run.stage == "main" and run.method == "hpt":
            first.setdefault(run.model, run)
    gates = {}
    for model, run in first.items():
        rows = pd.read_parquet(runs / run.name / "trainer" / GATE_FILE)
        rows["visit"] = rows.groupby("prompt_id").cumcount()
        table = rows.pivot(index="prompt_id", columns="visit", values="solve_rate")
        # Prompts of like solve rate together.
        table = table.loc[table.mean(axis=1).sort_values().index]
        gates[model] = [[None if rate != rate else rate for rate in row] for row in table.to_numpy().tolist()]
    return gates


def read_summary(path: Path) -> dict[str, Any]:
    """A summary from its file.

    Raises:
        FileNotFoundError: if there is none.
    """
    return json.loads(path.read_text())


def _mean(shares: Mapping[str, float], suites: Iterable[str]) -> float:
    values = [shares[suite] for suite in suites]
    return sum(values) / len(values)


def _share(summary: Summary, suite: str, counts: str, part: str | None) -> float:
    """Right answers among all samples of a suite's problems, or of a part of them."""
    wanted = {None: "01", "easy": "1", "hard": "0"}[part]
    counted = [int(count) for count, flag in zip(counts, summary["easy"][suite]) if flag in wanted]
    return sum(counted) / (len(counted) * summary["settings"]["test_samples"]) if counted else math.nan


class Scores:
    """Shares of right answers of one stage's runs at one budget.

    Args:
        summary: of a comparison.
        budget: of `BUDGETS`.
        models: whose; a score is the mean over them.
        stage: of the runs.
        also: methods whose runs of stage "main" are counted too.
        part: "easy" or "hard": only these problems; None: all.
    """

    def __init__(
        self,
        summary: Summary,
        budget: str,
        models: Sequence[str],
        stage: str = "main",
        also: Sequence[str] = (),
        part: str | None = None,
    ) -> None:
        self.models = list(models)
        self._shares: dict[tuple[str, str, int], dict[str, float]] = {}
        for entry in summary["runs"]:
            run = entry["run"]
            is_counted = run["stage"] == stage or (run["stage"] == "main" and run["method"] in also)
            if is_counted and budget in entry["right"]:
                shares = {suite: _share(summary, suite, text, part) for suite, text in entry["right"][budget].items()}
                shares |= {name: _mean(shares, suites) for name, suites in AVERAGES.items()}
                self._shares[run["method"], run["model"], run["seed"]] = shares
        names = [*METHODS, *ABLATIONS]
        self.methods = sorted({method for method, _, _ in self._shares}, key=names.index)
        # Those that every method has: tests are paired by seed.
        self.seeds: list[int] = [
            seed
            for seed in summary["settings"]["seeds"]
            if all((method, model, seed) in self._shares for method in self.methods for model in self.models)
        ]

    def by_seed(self, method: str, column: str) -> list[float]:
        """A method's score with each seed.

        Args:
            method: of `methods`.
            column: a suite, or an average's name.
        """
        return [
            sum(self._shares[method, model, seed][column] for model in self.models) / len(self.models)
            for seed in self.seeds
        ]

    def interval(self, method: str, column: str) -> Interval:
        """Mean and 95 % interval over seeds."""
        return interval(self.by_seed(method, column))

    def p_values(self, column: str) -> dict[str, float]:
        """Of each method but HPT: P value of its difference to HPT, paired by seed, Holm's correction for them all."""
        hpt = self.by_seed("hpt", column)
        others = [method for method in self.methods if method not in ("hpt", "base")]
        return holm(
            {
                method: paired_p([ours - theirs for ours, theirs in zip(hpt, self.by_seed(method, column))])
                for method in others
            }
        )
