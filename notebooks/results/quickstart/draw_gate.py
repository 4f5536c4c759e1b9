"""Draw the README's figure of the gate from the committed history of a quickstart run.

python notebooks/results/quickstart/draw_gate.py
"""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
ROLLOUTS = 8
# Okabe and Ito's colors, which color-blind readers can distinguish.
DEMONSTRATION, OWN, NOTHING = "#D55E00", "#0072B2", "#BBBBBB"


def draw_rule(axes: Axes) -> None:
    """What a prompt learns from, by how many of its rollouts are right."""
    for solved in range(ROLLOUTS + 1):
        color = DEMONSTRATION if solved == 0 else NOTHING if solved == ROLLOUTS else OWN
        axes.bar(solved, 1, color=color, width=1 if 0 < solved < ROLLOUTS else 0.94)
    for place, text in (
        (0, "demonstration\n(SFT)"),
        (4, "its own rollouts\n(policy gradient)"),
        (8, "nothing left\nto learn"),
    ):
        rotation = 0 if place == 4 else 90
        color = "black" if place == 8 else "white"
        axes.text(place, 0.5, text, ha="center", va="center", rotation=rotation, color=color, fontsize=11)
    axes.set(title="Each prompt, at each step", xlabel=f"right answers among {ROLLOUTS} rollouts", yticks=[])
    axes.set_xticks(range(ROLLOUTS + 1))


def draw_run(axes: Axes, history: pd.DataFrame) -> None:
    """Shares of prompts over steps."""
    kinds = pd.DataFrame(
        {
            "demonstration": history["demonstration"] > 0,
            "own rollouts": (history["demonstration"] == 0) & (history["solve_rate"] < 1),
            "nothing left to learn": (history["demonstration"] == 0) & (history["solve_rate"] == 1),
        }
    )
    shares = kinds.groupby(history["step"]).mean().rolling(5, center=True, min_periods=1).mean()
    axes.stackplot(shares.index, shares.to_numpy().T, colors=[DEMONSTRATION, OWN, NOTHING], labels=kinds)
    axes.set(title="The quickstart's prompts", xlabel="optimizer step (mean of 5)", ylabel="share of prompts")
    axes.set(xlim=(shares.index.min(), shares.index.max()), ylim=(0, 1))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)


def main() -> None:
    """Write gate.png beside this file."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    rule, run = figure.subplots(1, 2)
    draw_rule(rule)
    draw_run(run, pd.read_parquet(FOLDER / "gate.parquet"))
    for axes in (rule, run):
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(FOLDER / "gate.png", dpi=120)


if __name__ == "__main__":
    main()
