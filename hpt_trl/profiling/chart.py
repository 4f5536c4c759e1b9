"""The figure of `hpt-trl benchmark`: ratios as bars, with their goals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# Okabe and Ito's colors, which color-blind readers can distinguish.
_MET, _MISSED = "#0072B2", "#D55E00"


def draw_ratios(results: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """Draw one bar per ratio, with a mark at its goal if it has one.

    Args:
        results: `name`, `ratio`, and `goal` and `holds` where there is a goal; drawn from top to bottom.
        title: what the ratios are of.
        file: where to save it; the suffix decides the format.
    """
    figure = Figure(figsize=(7, 0.4 * len(results) + 1.4), layout="constrained")
    axes = figure.add_subplot()
    # Beside the name the number is in no goal's way.
    names = [f"{result['name']}  {result['ratio']:.2f}" for result in results]
    colors = [_MET if result.get("holds", True) else _MISSED for result in results]
    axes.barh(names, [result["ratio"] for result in results], color=colors)
    goals = [(result["goal"], name) for result, name in zip(results, names) if result.get("goal") is not None]
    if goals:
        axes.plot(*zip(*goals), "k|", markersize=16, label="goal: at most this")
        axes.legend(loc="upper right")
    axes.axvline(1, color="0.7", linewidth=0.8, zorder=0)
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set_title(title)
    figure.savefig(file, dpi=130)
