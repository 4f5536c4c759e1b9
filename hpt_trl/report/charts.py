"""The pictures of a report, one a panel: axes and a run in, a drawing out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpt_trl.report.gate_maps import gate_share, is_revisited, question_map, step_map
from hpt_trl.report.run_folder import Run

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, VERMILLION, PINK, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#8A8F98"
_SMOOTHED_FROM = 40  # points; below it the eye smooths


@dataclass(frozen=True)
class Panel:
    """
    One picture.

    Args:
        name: of its file.
        title: above it.
        caption: what the reader sees, in a sentence.
        draw: `(axes, run) -> whether there was something to draw`.
        missing: a sentence for a run that did not record it.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any, Run], bool]
    missing: str


def _curve(axes: Any, values: pd.Series, label: str, colour: str, **line: Any) -> bool:
    """A line; of many points their moving mean, over the points themselves drawn faintly."""
    if values.empty:
        return False
    # A metric that few steps logged is points.
    style = {"color": colour, "linewidth": 2, "marker": "o" if len(values) < 3 else "", "markersize": 4} | line
    if len(values) >= _SMOOTHED_FROM:
        window = max(3, len(values) // 20)
        axes.plot(values.index, values, **(style | {"linewidth": 0.8, "alpha": 0.35, "linestyle": "-"}))
        values = values.rolling(window, center=True, min_periods=1).mean()
    axes.plot(values.index, values, label=label, **style)
    return True


def _shares(axes: Any, columns: Sequence[tuple[pd.Series, str, str]]) -> bool:
    """Areas that add up to the whole."""
    table = pd.concat([values for values, _, _ in columns], axis=1).dropna()
    if table.empty:
        return False
    if len(table) >= _SMOOTHED_FROM:
        table = table.rolling(max(3, len(table) // 20), center=True, min_periods=1).mean()
    labels, colours = zip(*((label, colour) for _, label, colour in columns))
    axes.stackplot(table.index, table.to_numpy().T, labels=labels, colors=colours, linewidth=0)
    axes.set_ylim(0, 1)
    axes.margins(x=0)
    return True


def _reward(axes: Any, run: Run) -> bool:
    drawn = _curve(axes, run.series("hpt/solve_rate"), "solve rate", BLUE, linewidth=3.5, alpha=0.55)
    drawn |= _curve(axes, run.series("reward"), "mean reward", GREEN, linestyle="--")
    for name, label, colour in (("eval_hpt/solve_rate", "evaluation", PINK), ("eval_reward", "evaluation", PINK)):
        if name in run.evaluations:
            values = run.evaluations[name].dropna()
            axes.plot(values.index, values, label=label, color=colour, marker="o", linestyle=":", markersize=5)
            drawn = True
            break
    axes.set_ylabel("share solved, reward")
    if drawn and axes.get_ylim()[0] >= -0.1 and axes.get_ylim()[1] <= 1.1:
        axes.set_ylim(0, 1.02)
    return drawn


def _sources(axes: Any, run: Run) -> bool:
    axes.set_ylabel("share of prompts")
    share = run.series("hpt/demonstration_share")
    return _shares(
        axes,
        ((share, "on a demonstration", ORANGE), ((1 - share).rename("rollouts"), "on rollouts alone", BLUE)),
    )


def _groups(axes: Any, run: Run) -> bool:
    axes.set_ylabel("share of prompts")
    none, every = run.series("hpt/none_solved"), run.series("hpt/all_solved")
    some = (1 - none - every).clip(lower=0).rename("some")
    return _shares(axes, ((none, "no rollout solved", VERMILLION), (some, "some", SKY), (every, "all", GREEN)))


def _entropy(axes: Any, run: Run) -> bool:
    axes.set_ylabel("entropy, nats per token")
    drawn = _curve(axes, run.series("entropy"), "rollouts, mean", BLUE)
    _from_zero(axes, drawn)
    return drawn


def _lengths(axes: Any, run: Run) -> bool:
    axes.set_ylabel("tokens")
    drawn = _curve(axes, run.series("completions/mean_length"), "mean", BLUE)
    drawn |= _curve(axes, run.series("completions/max_length"), "longest", SKY, linestyle="--", linewidth=1.5)
    drawn |= _curve(axes, run.series("demonstrations/length"), "demonstrations", ORANGE, linestyle="-.", linewidth=1.5)
    limit = run.config.get("max_completion_length")
    if drawn and limit:
        axes.axhline(limit, color=GREY, linestyle=":", linewidth=1.5, label="limit")
    _from_zero(axes, drawn)
    return drawn


def _nll(axes: Any, run: Run) -> bool:
    axes.set_ylabel("NLL, nats per token")
    values = run.series("demonstrations/nll")
    if values.empty:
        return False
    # Not every step has one: points, and a line only through many.
    axes.plot(values.index, values, color=ORANGE, marker="o", linestyle="none", markersize=3.5, alpha=0.7)
    if len(values) >= _SMOOTHED_FROM:
        mean = values.rolling(len(values) // 10, center=True, min_periods=1).mean()
        axes.plot(mean.index, mean, color=VERMILLION, linewidth=2, label="moving mean")
    _from_zero(axes, True)
    return True


def _gradient(axes: Any, run: Run) -> bool:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_ylabel("gradient norm")
    norm = run.series("grad_norm").replace([np.inf, -np.inf], np.nan).dropna()
    if norm.empty:
        return False
    _curve(axes, norm, "norm", BLUE)
    skips = run.series("hpt/skipped_steps").diff().fillna(run.series("hpt/skipped_steps").head(1))
    skipped = skips.index[skips > 0]
    limit = run.config.get("skip_grad_norm_above")
    if limit:
        axes.axhline(limit, color=GREY, linestyle=":", linewidth=1.5, label=f"limit {limit:g}")
    if len(skipped):
        height = norm.reindex(skipped).fillna(norm.max())
        axes.plot(skipped, height, color=VERMILLION, marker="x", linestyle="none", markersize=7, label="step skipped")
    if norm.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        _from_zero(axes, True)
    return True


def _time(axes: Any, run: Run) -> bool:
    axes.set_ylabel("seconds a step")
    step = run.series("step_time")
    if step.empty:
        return False
    parts = [run.series(f"time/{part}") for part in ("generation", "verdicts")]
    if any(part.empty for part in parts):
        _curve(axes, step, "whole step", BLUE)
        _from_zero(axes, True)
        return True
    table = pd.concat([step, *parts], axis=1).dropna()
    if len(table) >= _SMOOTHED_FROM:
        table = table.rolling(max(3, len(table) // 20), center=True, min_periods=1).mean()
    whole, generation, verdicts = (table.iloc[:, column] for column in range(3))
    areas = [generation, verdicts, (whole - generation - verdicts).clip(lower=0)]
    axes.stackplot(
        table.index, areas, labels=["generation", "verdicts", "training"], colors=[BLUE, ORANGE, GREEN], linewidth=0
    )
    axes.margins(x=0)
    return True


def _verdicts(axes: Any, run: Run) -> bool:
    axes.set_ylabel("share of rollouts")
    kinds = (
        ("right", "right", GREEN), ("wrong", "wrong", BLUE), ("unparseable_answer", "no answer", ORANGE),
        ("unparseable_gold", "bad solution", PINK), ("timed_out", "timed out", VERMILLION),
    )  # fmt: skip
    found = [(run.series(f"verdicts/{kind}"), label, colour) for kind, label, colour in kinds]
    # Kinds that never came need no place in the legend.
    return _shares(axes, [each for each in found if each[0].max() > 0] or found)


def _from_zero(axes: Any, is_drawn: bool) -> None:
    if is_drawn:
        axes.set_ylim(0, axes.get_ylim()[1])


# The gate, question by question.


def _gate_map(make: Callable, of_share: bool) -> Callable[[Any, Run], bool]:
    def draw(axes: Any, run: Run) -> bool:
        from matplotlib.colors import LinearSegmentedColormap

        if run.gate is None or run.gate.empty or (make is question_map and not is_revisited(run.gate)):
            return False
        values = gate_share(run.gate) if of_share else run.gate["solve_rate"]
        if values.isna().all():
            return False
        picture, steps = make(run.gate, values)
        colours = LinearSegmentedColormap.from_list("sources", [BLUE, "#B8B8B8", ORANGE]) if of_share else "cividis"
        # Rollouts of step s are generated when s steps are done: the step that learns from them is the next.
        ends = (steps[0] + 0.5, steps[-1] + 1.5, 0, picture.shape[0])
        image = axes.imshow(
            picture, cmap=colours, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="none", extent=ends
        )
        label = "share on the demonstration" if of_share else "solve rate"
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02, aspect=25, ticks=[0, 0.5, 1])
        bar.set_label(label)
        bar.outline.set_visible(False)
        axes.set_ylabel("questions of the step" if make is step_map else "questions")
        axes.yaxis.get_major_locator().set_params(integer=True)
        return True

    return draw


_NO_GATE = "No gate.parquet: this run did not record its gate."
_NO_RETURN = "Questions were seen about once each, so none has a history."

PANELS = (
    Panel("reward", "Reward and solve rate", "Dashed: the mean reward, all reward functions together. Wide: the "
          "share of rollouts that solved their prompt, as the gate counts it.", _reward, "No reward was logged."),
    Panel("sources", "What prompts learn from", "Share of a step's prompts whose demonstration was learned.", _sources,
          "No share of demonstrations was logged: this trainer has none."),
    Panel("groups", "How the groups came out", "Groups in which all rollouts fare alike give no policy gradient.",
          _groups, "Solved and unsolved groups were not logged."),
    Panel("gate_solve_rate", "Gate: solve rates, step by step", "A column is a step; its questions are stacked by "
          "solve rate, the hardest at the bottom.", _gate_map(step_map, False), _NO_GATE),
    Panel("gate_sources", "Gate: what each question learned from", "The same questions in the same order: the hardest, "
          "at the bottom, learn from their demonstration.", _gate_map(step_map, True), _NO_GATE),
    Panel("questions_solve_rate", "Questions seen again: solve rates", "A row is a question, from each visit to the "
          "next; the hardest at the bottom.", _gate_map(question_map, False), _NO_RETURN),
    Panel("questions_sources", "Questions seen again: what they learned from", "The same questions.",
          _gate_map(question_map, True), _NO_RETURN),
    Panel("nll", "How well it knows the demonstrations", "Mean over the tokens of the step's demonstrations; lower is "
          "better known.", _nll, "No step learned from a demonstration."),
    Panel("entropy", "Entropy", "Of the policy over its next token. Near 0, rollouts of a prompt are all alike.",
          _entropy, "No entropy was logged."),
    Panel("lengths", "Lengths", "In tokens. A rollout at the limit was cut before its end.", _lengths,
          "No lengths were logged."),
    Panel("gradient", "Gradient norm", "Before clipping, with the steps that were skipped for it.", _gradient,
          "No gradient norm was logged."),
    Panel("time", "Where the time goes", "Training is forward and backward passes, without the optimizer's update.",
          _time, "No step time was logged."),
    Panel("verdicts", "Verdicts", "What the verifier said of the rollouts.", _verdicts,
          "No verdicts were logged: accuracy_reward was not among the reward functions."),
)  # fmt: skip
