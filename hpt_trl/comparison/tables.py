"""Markdown tables of a summary."""

import math
from collections.abc import Mapping, Sequence

from hpt_trl.comparison.methods import ABLATIONS, METHODS
from hpt_trl.comparison.plan import size_of
from hpt_trl.comparison.statistics import Interval, interval
from hpt_trl.comparison.summary import AVERAGES, BUDGETS, Scores, Summary
from hpt_trl.miniature.families import IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, SUITES

_COLUMN_TITLES = {"in": "**in dist.**", "out": "**out of dist.**"}
AVERAGE_TITLES = {"in": "in distribution", "out": "out of distribution"}


def title_of(method: str) -> str:
    """A method's title in tables."""
    return (METHODS | ABLATIONS)[method].title


def cell(value: Interval) -> str:
    """A fraction in %, with half the width of its interval."""
    half = (value.high - value.low) / 2
    return f"{100 * value.mean:.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the first column left-aligned and the others right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_table(scores: Scores) -> str:
    """Methods by suites and averages, the best value of each column in bold."""
    columns = [*IN_DISTRIBUTION, "in", *OUT_OF_DISTRIBUTION, "out"]
    titles = [(SUITES | _COLUMN_TITLES)[column] for column in columns]
    return best_in_bold(
        titles, {method: [scores.interval(method, column) for column in columns] for method in scores.methods}
    )


def headline_table(summary: Summary) -> str:
    """Averages in and out of distribution at both budgets, mean over all models, the best of each column in bold."""
    scores = {budget: Scores(summary, budget, summary["settings"]["models"]) for budget in BUDGETS}
    columns = [(budget, name) for budget in BUDGETS for name in AVERAGES]
    titles = [f"{BUDGETS[budget]}, {AVERAGE_TITLES[name]}" for budget, name in columns]
    methods = scores["steps"].methods
    return best_in_bold(
        titles, {method: [scores[budget].interval(method, name) for budget, name in columns] for method in methods}
    )


def best_in_bold(titles: Sequence[str], rows: Mapping[str, Sequence[Interval]]) -> str:
    """A table with one row per method."""
    best = [max(rows, key=lambda method: rows[method][column].mean) for column in range(len(titles))]
    lines = []
    for method, values in rows.items():
        cells = [
            f"**{cell(value)}**" if best_method == method else cell(value) for best_method, value in zip(best, values)
        ]
        lines.append([title_of(method), *cells])
    return markdown(["", *titles], lines)


def parts_table(summary: Summary, budget: str, models: Sequence[str]) -> str:
    """Accuracy on easy problems, which pretraining contained, and on hard ones, which it did not."""
    parts = {part: Scores(summary, budget, models, part=part) for part in ("easy", "hard")}
    columns = [(name, part) for name in AVERAGES for part in parts]
    header = ["", *(f"{_COLUMN_TITLES[name]} {part}" for name, part in columns)]
    rows = [
        [title_of(method), *(cell(parts[part].interval(method, name)) for name, part in columns)]
        for method in parts["easy"].methods
    ]
    return markdown(header, rows)


def difference_table(scores: Scores) -> str:
    """The reference's score minus that of each other method, with p-values."""
    header = [f"{title_of(str(scores.reference))} minus"]
    for name in AVERAGES:
        header += [_COLUMN_TITLES[name], "p"]
    p_values = {name: scores.p_values(name) for name in AVERAGES}
    rows = []
    for method in p_values["in"]:
        row = [title_of(method)]
        for name in AVERAGES:
            differences = scores.differences(method, name)
            row += [f"{100 * sum(differences) / len(differences):+.1f}", p_text(p_values[name][method])]
        rows.append(row)
    return markdown(header, rows)


def p_text(p: float) -> str:
    """A p-value with three decimals; "-" for NaN."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def significance_text(scores: Scores) -> str:
    """Which methods the reference is significantly ahead of or behind, one line per average."""
    reference = str(scores.reference)
    if not any(method not in (reference, "base") for method in scores.methods):
        return f"{title_of(reference)} was not compared with any other method."
    lines = []
    for name, title in AVERAGE_TITLES.items():
        own = scores.interval(reference, name).mean
        methods: dict[str, list[str]] = {"ahead of": [], "behind": [], "not significantly different from": []}
        for method, p in scores.p_values(name).items():
            # p is NaN with a single seed, which makes nothing significant.
            if not p < 0.05:
                relation = "not significantly different from"
            elif own > scores.interval(method, name).mean:
                relation = "ahead of"
            else:
                relation = "behind"
            methods[relation].append(title_of(method))
        text = "; ".join(f"{relation} {', '.join(titles)}" for relation, titles in methods.items() if titles)
        lines.append(f"- {title.capitalize()}, {title_of(reference)} is {text}.")
    return "\n".join(lines)


def base_table(summary: Summary) -> str:
    """Accuracy of each base model on every suite at temperature 1, as for rollouts."""
    samples = summary["settings"]["test_samples"]
    rows = []
    for model in summary["settings"]["models"]:
        counts = [
            entry["rollouts"] for entry in summary["runs"] if entry["run"]["model"] == model and entry["rollouts"]
        ]
        if counts:
            rows.append([model, *(f"{100 * _mean_accuracy(counts, suite, samples):.1f}" for suite in SUITES)])
    return markdown(["", *SUITES.values()], rows)


def _mean_accuracy(counts: Sequence[Mapping[str, Sequence[int]]], suite: str, samples: int) -> float:
    """Fraction of correct samples of a suite's problems, mean over runs."""
    return interval([sum(right[suite]) / (len(right[suite]) * samples) for right in counts]).mean


def cost_table(summary: Summary) -> str:
    """Cost of each method at both budgets, mean over its runs.

    Columns are optimizer steps, token passes in millions, and the fraction of them spent on forward passes with a
    gradient and on backward passes; the rest is generation.
    """
    header = [
        "",
        *(f"{column}, {title}" for title in BUDGETS.values() for column in ("steps", "M token passes", "training")),
    ]
    rows = []
    for method in summary["settings"]["methods"]:
        entries = [entry for entry in summary["runs"] if _is_main(entry, method) and entry["spent"]]
        if not entries:
            continue
        row = [title_of(method)]
        for budget in BUDGETS:
            spent = [entry["spent"][budget] for entry in entries]
            mean = {key: sum(costs[key] for costs in spent) / len(spent) for key in spent[0]}
            row += [
                f"{mean['step']:.0f}",
                f"{mean['compute'] / 1e6:.2f}",
                f"{3 * mean['backwarded'] / mean['compute']:.0%}",
            ]
        rows.append(row)
    return markdown(header, rows)


def search_table(summary: Summary) -> str:
    """In-distribution accuracy of every learning rate tried, by model width; the selected one in bold."""
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for entry in summary["runs"]:
        run = entry["run"]
        if run["stage"] == "search":
            by_rate = scores.setdefault((run["method"], size_of(run["model"])), {})
            last_accuracies = [point["in"] for point in entry["curve"][-2:]]
            by_rate.setdefault(run["learning_rate"], []).append(sum(last_accuracies) / len(last_accuracies))
    rates = sorted({rate for by_rate in scores.values() for rate in by_rate})
    rows = []
    for (method, size), by_rate in scores.items():
        selected = summary["learning_rates"][f"{size} {method}"]
        cells = {rate: f"{100 * interval(accuracies).mean:.1f}" for rate, accuracies in by_rate.items()}
        cells[selected] = f"**{cells[selected]}**"
        rows.append([title_of(method), size, *(cells.get(rate, "-") for rate in rates)])
    return markdown(["", "width", *(f"{rate:g}" for rate in rates)], rows)


def _is_main(entry: Summary, method: str) -> bool:
    return entry["run"]["stage"] == "main" and entry["run"]["method"] == method
