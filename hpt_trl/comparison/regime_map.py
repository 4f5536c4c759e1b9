"""The map: which method is best in which regime of demonstrations, as tables and a figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpt_trl.comparison.methods import HPT_METHODS, WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.regimes import REGIMES
from hpt_trl.comparison.runs import MAP_STAGE
from hpt_trl.comparison.statistics import interval
from hpt_trl.comparison.summary import AVERAGES, Scores, Summary
from hpt_trl.comparison.tables import AVERAGE_TITLES, cell, markdown, p_text, title_of


def map_scores(summary: Summary, budget: str) -> dict[str, Scores]:
    """Scores in every regime that was run, by its title. The main runs are a regime of their own, the first.

    Args:
        summary: summary of a comparison.
        budget: "steps" or "compute".
    """
    settings = summary["settings"]
    models, methods = settings["models"][:1], settings["methods"]
    found = {f"{settings['demonstrations'] or 'all'} error-free": Scores(summary, budget, models)}
    stages = {entry["run"]["stage"] for entry in summary["runs"]}
    for name, regime in REGIMES.items():
        if MAP_STAGE + name in stages:
            also = [method for method in WITHOUT_DEMONSTRATIONS if method in methods and not regime.model]
            on = [regime.model] if regime.model else models
            found[regime.title] = Scores(summary, budget, on, stage=MAP_STAGE + name, also=also)
    return found


def map_parts(summary: Summary) -> list[str]:
    """Text and tables of the map, at equal compute."""
    settings = summary["settings"]
    scores = map_scores(summary, "compute")
    text = (
        f"On {settings['models'][0]}, with {settings['training_problems']} training prompts, at equal compute. A "
        "regime says how many prompts have a demonstration and of what kind: error-free; one in five with a wrong "
        "answer; of a textbook, with steps for hard problems only; in another notation, longer than the model's own. "
        "The weaker base was pretrained half as long. Learning rates are those of the main runs. GRPO and Dr. GRPO use "
        "no demonstrations, so their runs on the same base are the main runs. p-values are those of t tests paired by "
        "seed, with Holm's correction over methods."
    )
    parts = ["## The map: when to use what", text]
    for column, title in AVERAGE_TITLES.items():
        parts += [f"### {title.capitalize()}", best_table(scores, column), accuracy_table(scores, column)]
    return parts


def best_table(scores: Mapping[str, Scores], column: str) -> str:
    """One row per regime: the best method, the best that is not HPT, and the distance of both kinds of HPT to it."""
    kinds = [name for name in ("warmup_hpt", "hpt") if all(name in regime.methods for regime in scores.values())]
    header = ["demonstrations", "best method", "its accuracy", "best without HPT", "its accuracy"]
    for kind in kinds:
        header += [f"{title_of(kind)}, minus that", "p"]
    rows = []
    for title, regime in scores.items():
        others = [method for method in regime.methods if method not in (*HPT_METHODS, "base")]
        best, best_other = (
            max(methods, key=lambda method: regime.interval(method, column).mean)
            for methods in (regime.methods, others)
        )
        row = [title]
        for method in (best, best_other):
            row += [title_of(method), cell(regime.interval(method, column))]
        for kind in kinds:
            p = regime.p_values(column, kind)[best_other]
            row += [cell(interval(regime.differences(best_other, column, kind))), p_text(p)]
        rows.append(row)
    return markdown(header, rows)


def accuracy_table(scores: Mapping[str, Scores], column: str) -> str:
    """Regimes by methods, and each method in the worst of these regimes; the best of each row in bold."""
    methods = [
        method for method in next(iter(scores.values())).methods if all(method in s.methods for s in scores.values())
    ]
    rows = {title: {name: regime.interval(name, column) for name in methods} for title, regime in scores.items()}
    rows["worst of these"] = {
        name: min((row[name] for row in rows.values()), key=lambda value: value.mean) for name in methods
    }
    lines = []
    for title, row in rows.items():
        best = max(methods, key=lambda method: row[method].mean)
        lines.append([title, *(f"**{cell(row[name])}**" if name == best else cell(row[name]) for name in methods)])
    return markdown(["demonstrations", *map(title_of, methods)], lines)


def draw_map(summary: Summary, colors: Mapping[str, str]) -> Figure:
    """Accuracy of every method in every regime at equal compute, with intervals; one panel per average."""
    scores = map_scores(summary, "compute")
    figure = Figure(figsize=(12.5, 0.95 * len(scores) + 1.6), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(AVERAGES), sharey=True), AVERAGES):
        for row, regime in enumerate(scores.values()):
            methods = [method for method in regime.methods if method != "base"]
            for method, offset in zip(methods, np.linspace(0.32, -0.32, len(methods))):
                _draw_interval(axes, regime, method, column, row + offset, colors[method])
        axes.set(title=f"Accuracy {AVERAGE_TITLES[column]}", xlabel="%")
        axes.set_yticks(range(len(scores)), list(scores))
        axes.invert_yaxis()
        axes.grid(axis="x", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique, loc="outside right center", frameon=False)
    return figure


def _draw_interval(axes: Any, regime: Scores, method: str, column: str, height: float, color: str) -> None:
    mean, low, high = (100 * value for value in regime.interval(method, column))
    is_reference = method == regime.reference
    axes.plot([low, high], [height, height], color=color, linewidth=1.2)
    axes.plot(
        [mean], [height], color=color, marker="D" if is_reference else "o", markersize=7 if is_reference else 5,
        linestyle="", label=title_of(method),
    )  # fmt: skip
