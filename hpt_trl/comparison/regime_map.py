"""The map: which method is best in which regime of demonstrations, as tables and a figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpt_trl.comparison.methods import HPT_METHODS, WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.regimes import REGIMES
from hpt_trl.comparison.runs import MAP_STAGE
from hpt_trl.comparison.statistics import interval
from hpt_trl.comparison.summary import AVERAGES, BUDGETS, Scores, Summary
from hpt_trl.comparison.tables import AVERAGE_TITLES, cell, markdown, p_text, title_of


def has_map(summary: Summary) -> bool:
    """Whether a summary has runs in regimes of demonstrations."""
    return any(entry["run"]["stage"].startswith(MAP_STAGE) for entry in summary["runs"])


def map_scores(summary: Summary, budget: str, k: int = 1) -> dict[str, Scores]:
    """Scores in every regime that was run, by its title. The main runs are a regime of their own, the first.

    Args:
        summary: summary of a comparison.
        budget: "steps" or "compute".
        k: of pass@k; 1 for accuracy.
    """
    settings = summary["settings"]
    models, methods = settings["models"][:1], settings["methods"]
    found = {f"{settings['demonstrations'] or 'all'} error-free": Scores(summary, budget, models, k=k)}
    stages = {entry["run"]["stage"] for entry in summary["runs"]}
    for name, regime in REGIMES.items():
        if MAP_STAGE + name in stages:
            also = [method for method in WITHOUT_DEMONSTRATIONS if method in methods and not regime.model]
            on = [regime.model] if regime.model else models
            found[regime.title] = Scores(summary, budget, on, stage=MAP_STAGE + name, also=also, k=k)
    return found


def map_parts(summary: Summary) -> list[str]:
    """Text and tables of the map."""
    settings = summary["settings"]
    text = (
        f"On {settings['models'][0]}, with {settings['training_problems']} training prompts. A regime says how "
        "many prompts have a demonstration and of what kind: error-free; one in five with a wrong "
        "answer; of a textbook, with steps for hard problems only; in another notation, longer than the model's own. "
        "The weaker base was pretrained half as long. Learning rates are those of the main runs. GRPO and Dr. GRPO use "
        "no demonstrations, so their runs on the same base are the main runs. p-values are those of t tests paired by "
        "seed, with Holm's correction over methods."
    )
    parts = ["## The map: when to use what", text]
    for budget, name in BUDGETS.items():
        scores = map_scores(summary, budget)
        for column, title in AVERAGE_TITLES.items():
            parts += [f"### {name.capitalize()}, {title}", accuracy_table(scores, column), best_table(scores, column)]
            parts += [distance_table(scores, column, other) for other in (None, "sft_grpo")]
    return [*parts, *_pass_parts(summary)]


def _pass_parts(summary: Summary) -> list[str]:
    """The share of problems that any sample solves, at equal compute."""
    samples = summary["settings"]["test_samples"]
    scores = map_scores(summary, "compute", k=samples)
    parts = [f"### Equal compute, solved by at least one of {samples} samples"]
    for column, title in AVERAGE_TITLES.items():
        parts += [f"pass@{samples} in %, {title}:", accuracy_table(scores, column)]
        parts.append(distance_table(scores, column, "sft_grpo"))
    return parts


def best_table(scores: Mapping[str, Scores], column: str) -> str:
    """One row per regime: the best method, and the best of those that are not HPT."""
    rows = []
    for title, regime in scores.items():
        best = max(regime.methods, key=lambda method: regime.interval(method, column).mean)
        other = _best_without_hpt(regime, column)
        accuracies = [cell(regime.interval(method, column)) for method in (best, other)]
        rows.append([title, title_of(best), accuracies[0], title_of(other), accuracies[1]])
    return markdown(["demonstrations", "best method", "its accuracy", "best without HPT", "its accuracy"], rows)


def distance_table(scores: Mapping[str, Scores], column: str, other: str | None) -> str:
    """One row per regime: each kind of HPT minus another method, and the p-value of that difference.

    Args:
        scores: scores in every regime, by its title.
        column: a key of `AVERAGES`.
        other: the other method; None: the best of each regime that is not HPT.
    """
    kinds = [name for name in HPT_METHODS if all(name in regime.methods for regime in scores.values())]
    against = title_of(other) if other else "the best without HPT"
    rows = []
    for title, regime in scores.items():
        method = other or _best_without_hpt(regime, column)
        if method not in regime.methods:
            continue
        differences = [cell(interval(regime.differences(method, column, kind))) for kind in kinds]
        p_values = [p_text(regime.p_values(column, kind)[method]) for kind in kinds]
        rows.append([title, *(f"{each} (p {p})" for each, p in zip(differences, p_values))])
    return markdown(["demonstrations", *(f"{title_of(kind)}, minus {against}" for kind in kinds)], rows)


def _best_without_hpt(regime: Scores, column: str) -> str:
    others = [method for method in regime.methods if method not in (*HPT_METHODS, "base")]
    return max(others, key=lambda method: regime.interval(method, column).mean)


def accuracy_table(scores: Mapping[str, Scores], column: str) -> str:
    """Regimes by methods, the best of each row in bold; the last row says how far each method is behind it at most."""
    methods = [
        method for method in next(iter(scores.values())).methods if all(method in s.methods for s in scores.values())
    ]
    furthest_behind = dict.fromkeys(methods, 0.0)
    lines = []
    for title, regime in scores.items():
        row = {method: regime.interval(method, column) for method in methods}
        best = max(methods, key=lambda method: row[method].mean)
        lines.append([title, *(f"**{cell(row[name])}**" if name == best else cell(row[name]) for name in methods)])
        for name in methods:
            furthest_behind[name] = max(furthest_behind[name], row[best].mean - row[name].mean)
    least = min(furthest_behind.values())
    distances = [f"{100 * value:.1f}" for value in furthest_behind.values()]
    bold = [f"**{text}**" if value == least else text for text, value in zip(distances, furthest_behind.values())]
    return markdown(
        ["demonstrations", *map(title_of, methods)], [*lines, ["*furthest behind the best of a row*", *bold]]
    )


def draw_map(summary: Summary, colors: Mapping[str, str]) -> Figure:
    """Accuracy of every method in every regime at equal compute, with intervals; one panel per average."""
    scores = map_scores(summary, "compute")
    figure = Figure(figsize=(12.5, 0.95 * len(scores) + 1.6), layout="constrained")
    panels = figure.subplots(1, len(AVERAGES), sharey=True)
    for axes, column in zip(panels, AVERAGES):
        for row, regime in enumerate(scores.values()):
            methods = [method for method in regime.methods if method != "base"]
            for method, offset in zip(methods, np.linspace(-0.32, 0.32, len(methods))):
                _draw_interval(axes, regime, method, column, row + offset, colors[method])
        axes.set(title=f"Accuracy {AVERAGE_TITLES[column]}", xlabel="%")
        axes.set_yticks(range(len(scores)), list(scores))
        axes.grid(axis="x", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()  # shared
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique, loc="outside right center", frameon=False)
    return figure


def _draw_interval(axes: Any, regime: Scores, method: str, column: str, height: float, color: str) -> None:
    mean, low, high = (100 * value for value in regime.interval(method, column))
    is_hpt = method in HPT_METHODS
    axes.plot([low, high], [height, height], color=color, linewidth=1.2)
    shape = {"marker": "D", "markersize": 6} if is_hpt else {"marker": "o", "markersize": 5}
    edge = {"markeredgecolor": "0.2", "markeredgewidth": 0.5}
    axes.plot([mean], [height], color=color, linestyle="", label=title_of(method), **shape, **edge)
