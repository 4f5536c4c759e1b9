"""Draws several methods with several seeds each in one figure: training over steps, and accuracy at the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hpt_trl.report.charts import BLUE, GREEN, GREY, ORANGE
from hpt_trl.report.run_folder import Run

_COLORS = (GREY, GREEN, BLUE)
_WINDOW = 5

Score = Mapping[str, float]
"""The keys `accuracy`, `low` and `high`, as fractions."""


def mean_over_runs(runs: Sequence[Run], metric: str) -> pd.Series:
    """Mean of a metric over runs by optimizer step, as a moving average over five steps."""
    table = pd.concat([run.series(metric) for run in runs], axis=1)
    return table.mean(axis=1).rolling(_WINDOW, center=True, min_periods=1).mean()


def plot_methods(runs: Mapping[str, Sequence[Run]], scores: Mapping[str, Sequence[Score]], path: str | Path) -> None:
    """Plot the solve rate over steps, the share of prompts on demonstrations, and accuracy on held-out problems.

    Args:
        runs: the runs of each method; the last method is the one with a gate.
        scores: the scores of each method, one per seed; it may have more methods, such as the untrained model.
        path: the PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    training, gate, accuracy = figure.subplots(1, 3, width_ratios=(3, 3, 2.4))
    colors = dict(zip(runs, _COLORS[-len(runs) :]))
    for method, color in colors.items():
        values = mean_over_runs(runs[method], "hpt/solve_rate")
        training.plot(values.index, values, color=color, linewidth=2.5, label=method)
    training.set(title="Rollouts that solve their prompt", ylabel="share", ylim=(0, 1.02))
    training.legend(frameon=False, loc="upper left")
    method = list(runs)[-1]
    share = mean_over_runs(runs[method], "hpt/demonstration_share")
    gate.stackplot(share.index, share, 1 - share, colors=[ORANGE, BLUE], linewidth=0)
    gate.set(title=f"{method}: what its prompts are trained on", ylim=(0, 1))
    gate.margins(x=0)
    for axes in (training, gate):
        axes.set_xlabel(f"optimizer step (mean of {_WINDOW})")
    gate.text(0.04, 0.1, "demonstration (SFT)", transform=gate.transAxes)
    gate.text(0.96, 0.86, "rollouts (policy gradient)", transform=gate.transAxes, color="white", ha="right")
    for row, (method, of_seeds) in enumerate(scores.items()):
        color = colors.get(method, "black")
        for seed, score in enumerate(of_seeds):
            height = row + 0.16 * (seed - (len(of_seeds) - 1) / 2)
            accuracy.plot([score["low"], score["high"]], [height, height], color=color, linewidth=2, alpha=0.5)
            accuracy.plot(score["accuracy"], height, "o", color=color, markersize=5)
    accuracy.set_yticks(range(len(scores)), list(scores))
    accuracy.invert_yaxis()
    accuracy.set(title="Held-out problems solved", xlim=(0, 1), xlabel="one point per seed, 95% interval")
    for axes in (training, gate, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_fontsize(11)
    figure.savefig(path, dpi=120)
