"""Summary -> the paper's figures, from our runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hpt_trl.comparison.statistics import interval
from hpt_trl.comparison.summary import AVERAGES, Summary
from hpt_trl.comparison.tables import AVERAGE_TITLES, title_of
from hpt_trl.evaluation.scores import pass_at_k

# Okabe and Ito's colours, told apart by colour-blind readers too; each method keeps its own in all figures.
_COLOURS = {
    "base": "#999999", "sft": "#E69F00", "grpo": "#0072B2", "sft_grpo": "#009E73", "luffy": "#CC79A7",
    "srft": "#56B4E9", "chord": "#8C564B", "hpt": "#D55E00",
}  # fmt: skip


def draw_all(summary: Summary, folder: Path) -> dict[str, str]:
    """Draw every figure that the summary has the data for.

    Returns:
        File name and caption of each.
    """
    model = summary["settings"]["models"][0]
    drawn: dict[str, str] = {}
    figures: list[tuple[str, str, Callable[[], Figure | None]]] = [
        (
            "accuracy.png",
            "Accuracy over steps on the small exam, mean over seeds.",
            lambda: accuracy_curves(summary, model, "step"),
        ),
        (
            "accuracy_compute.png",
            "Accuracy over token passes on the small exam, mean over seeds.",
            lambda: accuracy_curves(summary, model, "compute"),
        ),
        ("demonstrations.png", "Share of prompts that learn from a demonstration.", lambda: shares(summary)),
        ("entropy_length.png", "Entropy and length of sampled answers.", lambda: entropy_and_length(summary, model)),
        ("solve_rates.png", "Solve rate of every training prompt at every visit.", lambda: heat_map(summary, model)),
        ("pass_at_k.png", pass_caption(summary), lambda: pass_curves(summary)),
        (
            "solved_alone.png",
            "Test problems that one method alone solves in half of its samples or more, at equal compute; "
            "what the base solves counts for none.",
            lambda: solved_alone(summary, model),
        ),
    ]
    for name, caption, draw in figures:
        figure = draw()
        if figure is not None:
            figure.savefig(folder / name, dpi=130)
            drawn[name] = f"{caption} Model: {model}." if name != "demonstrations.png" else caption
    return drawn


def pass_caption(summary: Summary) -> str:
    """What pass@k was measured on."""
    args = summary["settings"]
    return (
        f"At least one of k samples is right: {args['pass_problems']} problems a suite, {args['pass_samples']} samples "
        f"at temperature {args['temperature']:g}, at equal compute."
    )


def _emphasis(method: str) -> dict[str, float]:
    return {"linewidth": 2.6, "zorder": 3} if method == "hpt" else {}


def _panels(count: int, height: float = 3.8) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(5.2 * count + 1.2, height), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    return figure, panels


def _runs(summary: Summary, model: str) -> dict[str, list[Mapping[str, Any]]]:
    """Entries of the main runs on a model, by method in the table's order."""
    entries: dict[str, list[Mapping[str, Any]]] = {name: [] for name in summary["settings"]["methods"]}
    for entry in summary["runs"]:
        if entry["run"]["stage"] == "main" and entry["run"]["model"] == model:
            entries[entry["run"]["method"]].append(entry)
    return {name: found for name, found in entries.items() if found}


def _mean_curve(entries: Sequence[Mapping[str, Any]], key: str, over: str, end: float) -> tuple[np.ndarray, np.ndarray]:
    """A quantity over steps or token passes, every run interpolated to the same points, mean over runs."""
    points = np.linspace(0, end, 41)
    curves = [
        np.interp(points, [point[over] for point in entry["curve"]], [point[key] for point in entry["curve"]])
        for entry in entries
    ]
    return points, np.mean(curves, axis=0)


def accuracy_curves(summary: Summary, model: str, over: str) -> Figure:
    """Accuracy on the small exam, in and out of distribution.

    Args:
        summary: of a comparison.
        model: whose.
        over: "step" or "compute", each up to its budget.
    """
    figure, panels = _panels(2)
    for axes, (key, title) in zip(panels, AVERAGE_TITLES.items()):
        _draw_curves(axes, summary, model, key, over, factor=100)
        axes.set(title=f"Accuracy {title}", ylabel="%")
        axes.set_ylim(bottom=0)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def entropy_and_length(summary: Summary, model: str) -> Figure:
    """Mean entropy and length of the answers to the small exam."""
    figure, panels = _panels(2)
    for axes, (key, title, unit) in zip(
        panels, (("entropy", "Entropy", "nats a token"), ("tokens", "Length of an answer", "tokens"))
    ):
        _draw_curves(axes, summary, model, key, "compute", factor=1)
        axes.set(title=title, ylabel=unit)
        axes.set_ylim(bottom=0)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_curves(axes: Any, summary: Summary, model: str, key: str, over: str, factor: float) -> None:
    unit, label, end = {
        "step": (1, "optimizer steps", summary["settings"]["steps"]),
        "compute": (1e6, "token passes, millions", summary["settings"]["compute"]),
    }[over]
    axes.set_xlabel(label)
    for method, entries in _runs(summary, model).items():
        if method == "base":
            start = np.mean([entry["curve"][0][key] for entry in entries])
            axes.axhline(factor * start, color=_COLOURS[method], linestyle=":", label="base")
            continue
        points, mean = _mean_curve(entries, key, over, end)
        axes.plot(points / unit, factor * mean, color=_COLOURS[method], label=title_of(method), **_emphasis(method))


def shares(summary: Summary) -> Figure | None:
    """HPT's share of prompts on demonstrations over its run, a line a model."""
    figure, (axes,) = _panels(1)
    for model in summary["settings"]["models"]:
        entries = _runs(summary, model).get("hpt", [])
        if entries:
            # The trainer logs every fifth step, and what is left at the end.
            length = min(max(costs["step"] for costs in entry["spent"].values()) // 5 for entry in entries)
            curves = [entry["demonstration_share"][:length] for entry in entries]
            steps = 5 * (1 + np.arange(length))
            axes.plot(steps, 100 * np.mean(curves, axis=0), label=model)
    if not axes.lines:
        return None
    axes.set(title="Prompts on a demonstration, HPT", xlabel="optimizer step", ylabel="%", ylim=(0, 102))
    axes.legend(frameon=False)
    return figure


def heat_map(summary: Summary, model: str) -> Figure | None:
    """What HPT's rollouts solved of each training prompt, every time it came."""
    if model not in summary["gates"]:
        return None
    rates = np.array([[np.nan if rate is None else rate for rate in row] for row in summary["gates"][model]])
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * rates, aspect="auto", interpolation="none", cmap="viridis", vmin=0, vmax=100)
    axes.set(title="Solve rate, HPT's first run", xlabel="visit of the prompt", ylabel="training prompts, sorted")
    figure.colorbar(image, label="rollouts that solved it, %")
    return figure


def pass_curves(summary: Summary) -> Figure | None:
    """pass@k in and out of distribution, mean over problems, suites and seeds."""
    model, most = summary["settings"]["models"][0], summary["settings"]["pass_samples"]
    ks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    runs = {
        method: [entry["passes"] for entry in entries if entry["passes"]]
        for method, entries in _runs(summary, model).items()
    }
    if not any(runs.values()):
        return None
    figure, panels = _panels(2)
    for axes, (name, suites) in zip(panels, AVERAGES.items()):
        for method, passes in runs.items():
            shares_k = [pass_share(passes, suites, most, k) for k in ks]
            axes.plot(ks, 100 * np.array(shares_k), color=_COLOURS[method], marker="o", markersize=4,
                      label=title_of(method), **_emphasis(method))  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.set(title=f"pass@k {AVERAGE_TITLES[name]}", xlabel="k", ylabel="problems, %", ylim=(0, 103))
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pass_share(passes: Sequence[Mapping[str, Sequence[int]]], suites: Sequence[str], samples: int, k: int) -> float:
    """Unbiased pass@k, each suite and each run counting alike.

    Args:
        passes: right samples of every problem by suite, of each run.
        suites: to average over.
        samples: of a problem.
        k: as in pass@k.
    """
    return float(
        np.mean([np.mean([pass_at_k(samples, right, k) for right in run[suite]]) for run in passes for suite in suites])
    )


def solved_alone(summary: Summary, model: str) -> Figure | None:
    """How many test problems a method solves in most samples and no other does, mean over seeds, at equal compute."""
    alone = alone_counts(summary, model)
    if not alone:
        return None
    figure, (axes,) = _panels(1)
    for place, (method, counts) in enumerate(alone.items()):
        mean, low, high = interval(counts)
        axes.bar(place, mean, color=_COLOURS[method])
        if low == low:
            axes.plot([place, place], [max(low, 0), high], color="0.25")
    axes.set_xticks(range(len(alone)), [title_of(method) for method in alone], rotation=30, ha="right")
    axes.set(title="Solved by one method alone", ylabel="test problems")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return figure


def alone_counts(summary: Summary, model: str) -> dict[str, list[int]]:
    """By method and seed: problems half of whose samples or more are right, and of no other method's, base included."""
    half = summary["settings"]["test_samples"] / 2
    runs = _runs(summary, model)
    counts: dict[str, list[int]] = {method: [] for method in runs if method != "base"}
    for seed in summary["settings"]["seeds"]:
        solved = {}
        for method, entries in runs.items():
            right = next(entry["right"]["compute"] for entry in entries if entry["run"]["seed"] == seed)
            solved[method] = np.array([int(digit) >= half for text in right.values() for digit in text])
        total = np.sum(list(solved.values()), axis=0)
        for method, of_seed in counts.items():
            of_seed.append(int((solved[method] & (total == 1)).sum()))
    return counts
