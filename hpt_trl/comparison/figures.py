"""The paper's figures, drawn from the summary of our runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpt_trl.comparison.regime_map import draw_map, has_map
from hpt_trl.comparison.statistics import interval
from hpt_trl.comparison.summary import AVERAGES, REFERENCES, Summary
from hpt_trl.comparison.tables import AVERAGE_TITLES, title_of
from hpt_trl.evaluation.scores import pass_at_k

# Okabe and Ito's colors, which color-blind readers can distinguish. A method has the same color in all figures.
_COLORS = {
    "base": "#999999", "sft": "#E69F00", "grpo": "#0072B2", "sft_grpo": "#009E73", "luffy": "#CC79A7",
    "srft": "#56B4E9", "chord": "#8C564B", "hpt": "#D55E00", "warmup_hpt": "#000000", "flat_hpt": "#F0E442",
    "flat_grpo": "#7F7F00", "dr_grpo": "#56499E", "chord_mu": "#8C564B", "chord_phi": "#C49C94",
}  # fmt: skip


def draw_all(summary: Summary, folder: Path) -> dict[str, str]:
    """Draw every figure that the summary has the data for.

    Returns:
        Captions by file name.
    """
    model = summary["settings"]["models"][0]
    captions: dict[str, str] = {}
    figures: list[tuple[str, str, Callable[[], Figure | None]]] = [
        (
            "accuracy.png",
            "Accuracy over optimizer steps on the small evaluation, mean over seeds.",
            lambda: accuracy_curves(summary, model, "step"),
        ),
        (
            "accuracy_compute.png",
            "Accuracy over token passes on the small evaluation, mean over seeds.",
            lambda: accuracy_curves(summary, model, "compute"),
        ),
        ("demonstrations.png", "Prompts that train on their demonstration.", lambda: demonstration_shares(summary)),
        ("entropy_length.png", "Entropy and length of sampled answers.", lambda: entropy_and_length(summary, model)),
        ("solve_rates.png", "Solve rate of every training prompt at every visit.", lambda: heat_map(summary, model)),
        ("pass_at_k.png", pass_caption(summary), lambda: pass_curves(summary)),
        (
            "solved_alone.png",
            "Test problems that only one method solves in at least half of its samples, at equal compute; problems "
            "that the base model solves are excluded.",
            lambda: solved_alone(summary, model),
        ),
    ]
    if has_map(summary):
        caption = "Accuracy in every regime of demonstrations at equal compute, with 95% intervals over seeds."
        figures = [("map.png", caption, lambda: draw_map(summary, _COLORS))]
    for name, caption, draw in figures:
        figure = draw()
        if figure is not None:
            figure.savefig(folder / name, dpi=130)
            captions[name] = f"{caption} Model: {model}." if name != "demonstrations.png" else caption
    return captions


def pass_caption(summary: Summary) -> str:
    """Caption of the pass@k figure."""
    args = summary["settings"]
    return (
        f"pass@k, at equal compute: {args['pass_problems']} problems per suite, {args['pass_samples']} samples per "
        f"problem at temperature {args['temperature']:g}."
    )


def _emphasis(method: str) -> dict[str, float]:
    return {"linewidth": 2.6, "zorder": 3} if method in REFERENCES else {}


def _panels(count: int, height: float = 3.8) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(5.2 * count + 1.2, height), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    return figure, panels


def _runs(summary: Summary, model: str) -> dict[str, list[Mapping[str, Any]]]:
    """The main runs on a model, by method in the order of the tables."""
    entries: dict[str, list[Mapping[str, Any]]] = {name: [] for name in summary["settings"]["methods"]}
    for entry in summary["runs"]:
        if entry["run"]["stage"] == "main" and entry["run"]["model"] == model:
            entries[entry["run"]["method"]].append(entry)
    return {name: runs for name, runs in entries.items() if runs}


def _mean_curve(entries: Sequence[Mapping[str, Any]], key: str, over: str, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean curve of a quantity over steps or token passes; all runs are interpolated to the same points."""
    points = np.linspace(0, end, 41)
    curves = [
        np.interp(points, [point[over] for point in entry["curve"]], [point[key] for point in entry["curve"]])
        for entry in entries
    ]
    return points, np.mean(curves, axis=0)


def accuracy_curves(summary: Summary, model: str, over: str) -> Figure:
    """Accuracy on the small evaluation, in and out of distribution.

    Args:
        summary: summary of a comparison.
        model: name of the base model.
        over: the x axis, "step" or "compute", up to that budget.
    """
    figure, panels = _panels(2)
    for axes, (key, title) in zip(panels, AVERAGE_TITLES.items()):
        _draw_curves(axes, summary, model, key, over, factor=100)
        axes.set(title=f"Accuracy {title}", ylabel="%")
        axes.set_ylim(bottom=0)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def entropy_and_length(summary: Summary, model: str) -> Figure:
    """Mean entropy and length of the answers in the small evaluation."""
    figure, panels = _panels(2)
    for axes, (key, title, unit) in zip(
        panels, (("entropy", "Entropy", "nats per token"), ("tokens", "Answer length", "tokens"))
    ):
        _draw_curves(axes, summary, model, key, "compute", factor=1)
        axes.set(title=title, ylabel=unit)
        axes.set_ylim(bottom=0)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_curves(axes: Any, summary: Summary, model: str, key: str, over: str, factor: float) -> None:
    unit, label, end = {
        "step": (1, "optimizer steps", summary["settings"]["steps"]),
        "compute": (1e6, "token passes (millions)", summary["settings"]["compute"]),
    }[over]
    axes.set_xlabel(label)
    for method, entries in _runs(summary, model).items():
        if method == "base":
            start = np.mean([entry["curve"][0][key] for entry in entries])
            axes.axhline(factor * start, color=_COLORS[method], linestyle=":", label="base")
            continue
        points, mean = _mean_curve(entries, key, over, end)
        axes.plot(points / unit, factor * mean, color=_COLORS[method], label=title_of(method), **_emphasis(method))


def demonstration_shares(summary: Summary) -> Figure | None:
    """Fraction of prompts that HPT trains on their demonstration over the steps of a run, one line per model."""
    figure, (axes,) = _panels(1)
    for model in summary["settings"]["models"]:
        entries = _runs(summary, model).get("hpt", [])
        if entries:
            # The trainer logs every fifth step and once more at the end.
            length = min(max(costs["step"] for costs in entry["spent"].values()) // 5 for entry in entries)
            curves = [entry["demonstration_share"][:length] for entry in entries]
            steps = 5 * (1 + np.arange(length))
            axes.plot(steps, 100 * np.mean(curves, axis=0), label=model)
    if not axes.lines:
        return None
    axes.set(title="Prompts trained on their demonstration, HPT", xlabel="optimizer step", ylabel="%", ylim=(0, 102))
    axes.legend(frameon=False)
    return figure


def heat_map(summary: Summary, model: str) -> Figure | None:
    """Solve rate of each training prompt at each visit, in HPT's first run."""
    if model not in summary["gates"]:
        return None
    rates = np.array([[np.nan if rate is None else rate for rate in row] for row in summary["gates"][model]])
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * rates, aspect="auto", interpolation="none", cmap="viridis", vmin=0, vmax=100)
    axes.set(title="Solve rate, HPT's first run", xlabel="visit", ylabel="training prompts, sorted by mean solve rate")
    figure.colorbar(image, label="solve rate, %")
    return figure


def pass_curves(summary: Summary) -> Figure | None:
    """pass@k in and out of distribution, mean over problems, suites and seeds."""
    model, samples = summary["settings"]["models"][0], summary["settings"]["pass_samples"]
    ks = [2**power for power in range(samples.bit_length()) if 2**power <= samples]
    runs = {
        method: [entry["passes"] for entry in entries if entry["passes"]]
        for method, entries in _runs(summary, model).items()
    }
    if not any(runs.values()):
        return None
    figure, panels = _panels(2)
    for axes, (name, suites) in zip(panels, AVERAGES.items()):
        for method, passes in runs.items():
            shares_k = [pass_share(passes, suites, samples, k) for k in ks]
            axes.plot(ks, 100 * np.array(shares_k), color=_COLORS[method], marker="o", markersize=4,
                      label=title_of(method), **_emphasis(method))  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set(title=f"pass@k {AVERAGE_TITLES[name]}", xlabel="k", ylabel="%", ylim=(0, 103))
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pass_share(passes: Sequence[Mapping[str, Sequence[int]]], suites: Sequence[str], samples: int, k: int) -> float:
    """Unbiased pass@k; all suites and runs have the same weight.

    Args:
        passes: for each run, the number of correct samples of every problem, by suite.
        suites: suites to average over.
        samples: samples per problem.
        k: as in pass@k.
    """
    return float(
        np.mean([np.mean([pass_at_k(samples, right, k) for right in run[suite]]) for run in passes for suite in suites])
    )


def solved_alone(summary: Summary, model: str) -> Figure | None:
    """Number of test problems that only one method solves, mean over seeds, at equal compute."""
    alone = alone_counts(summary, model)
    if not alone:
        return None
    figure, (axes,) = _panels(1)
    for position, (method, counts) in enumerate(alone.items()):
        mean, low, high = interval(counts)
        axes.bar(position, mean, color=_COLORS[method])
        if not math.isnan(low):
            axes.plot([position, position], [max(low, 0), high], color="0.25")
    axes.set_xticks(range(len(alone)), [title_of(method) for method in alone], rotation=30, ha="right")
    axes.set(title="Solved by only one method", ylabel="test problems")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure


def alone_counts(summary: Summary, model: str) -> dict[str, list[int]]:
    """Problems that only this method solves in at least half of its samples, by method and seed; base included."""
    half = summary["settings"]["test_samples"] / 2
    runs = _runs(summary, model)
    counts: dict[str, list[int]] = {method: [] for method in runs if method != "base"}
    for seed in summary["settings"]["seeds"]:
        solved = {}
        for method, entries in runs.items():
            right = next(entry["right"]["compute"] for entry in entries if entry["run"]["seed"] == seed)
            solved[method] = np.array([int(digit) >= half for text in right.values() for digit in text])
        total = np.sum(list(solved.values()), axis=0)
        for method, method_counts in counts.items():
            method_counts.append(int((solved[method] & (total == 1)).sum()))
    return counts
