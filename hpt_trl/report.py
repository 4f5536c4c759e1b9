"""A run -> a picture: what the policy solved, what it learned from, and how well it knew the demonstrations."""

import json
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers too.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"

# Title, unit, and (key in the log, label, line) of each curve. The reward is often the solve rate: dashed on top.
_PANELS = (
    (
        "Solve rate",
        "share of rollouts",
        (
            ("hpt/solve_rate", "solve rate", {"color": _BLUE, "linewidth": 3, "alpha": 0.6}),
            ("reward", "mean reward", {"color": _GREEN, "linestyle": "--"}),
        ),
    ),
    (
        "What prompts learn from",
        "share of prompts",
        (("hpt/demonstration_share", "a demonstration", {"color": _ORANGE, "drawstyle": "steps-mid"}),),
    ),
    (
        "How well it knows the demonstrations",
        "NLL in nats per token",
        # Not every step has one: points, not a line across the gaps.
        (("demonstrations/nll", "demonstrations of the step", {"color": _ORANGE, "marker": "o", "linestyle": "none"}),),
    ),
)


def read_log(run_dir: str | Path) -> list[dict[str, Any]]:
    """The log of a run, from the `trainer_state.json` that Trainer saves.

    Raises:
        FileNotFoundError: if the folder holds none.
    """
    path = Path(run_dir) / "trainer_state.json"
    if not path.exists():
        raise FileNotFoundError(f"{str(run_dir)!r} holds no trainer_state.json: give the output_dir of a finished run.")
    return json.loads(path.read_text())["log_history"]


def plot_run(run_dir: str | Path, picture: str | Path) -> None:
    """Draw reward and solve rate, share on demonstrations, and NLL over optimizer steps into one PNG."""
    from matplotlib.figure import Figure

    log = read_log(run_dir)
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (title, unit, curves) in zip(figure.subplots(1, len(_PANELS)), _PANELS):
        for key, label, line in curves:
            points = [(entry["step"], entry[key]) for entry in log if entry.get(key) is not None]
            axes.plot([step for step, _ in points], [value for _, value in points], label=label, markersize=4, **line)
        axes.set(title=title, xlabel="optimizer step", ylabel=unit)
        # Shares are read against the whole.
        axes.set_ylim(0, 1.02 if unit.startswith("share") else None)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)
