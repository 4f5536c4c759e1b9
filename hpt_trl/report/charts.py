"""The panels of a report: functions that draw one chart of a run onto matplotlib axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpt_trl.report.gate_maps import by_step, gate_share, has_repeated_prompts, prompt_map, step_map
from hpt_trl.report.run_folder import Run

# Okabe and Ito's palette, which color-blind readers can distinguish.
BLUE, ORANGE, GREEN, VERMILLION, PINK, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
GREY = "#8A8F98"
_MIN_POINTS_TO_SMOOTH = 40
_MIN_POINTS_OF_AREAS = 5


@dataclass(frozen=True)
class Panel:
    """
    One chart.

    Args:
        name: name of its file.
        title: title of the chart.
        caption: one sentence on what the chart shows.
        draw: `(axes, run) -> whether there was data to draw`.
        missing: sentence to show for a run without the data.
        metrics: names of the logged metrics in the chart, for the table of their values.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any, Run], bool]
    missing: str
    metrics: tuple[str, ...] = ()


def _curve(axes: Any, values: pd.Series, label: str, color: str, **line: Any) -> bool:
    """Draw a line; for many points, draw their moving average over a faint line of the points."""
    if values.empty:
        return False
    # Fewer than three values are drawn as points.
    style = {"color": color, "linewidth": 2, "marker": "o" if len(values) < 3 else "", "markersize": 4} | line
    if len(values) >= _MIN_POINTS_TO_SMOOTH:
        window = max(3, len(values) // 20)
        axes.plot(values.index, values, **(style | {"linewidth": 0.8, "alpha": 0.35, "linestyle": "-"}))
        values = values.rolling(window, center=True, min_periods=1).mean()
    axes.plot(values.index, values, label=label, **style)
    return True


def _shares(axes: Any, columns: Sequence[tuple[pd.Series, str, str]]) -> bool:
    """Draw shares that add up to 1."""
    table = pd.concat([values for values, _, _ in columns], axis=1).dropna()
    if table.empty:
        return False
    if len(table) >= _MIN_POINTS_TO_SMOOTH:
        table = table.rolling(max(3, len(table) // 20), center=True, min_periods=1).mean()
    labels, colors = zip(*((label, color) for _, label, color in columns))
    _stacked(axes, table, labels, colors)
    axes.set_ylim(0, 1)
    return True


def _stacked(axes: Any, table: pd.DataFrame, labels: Sequence[str], colors: Sequence[str]) -> None:
    """Draw one area per column, each on top of the one before; few values are bars, because one has no area.

    Args:
        axes: where to draw.
        table: values by step.
        labels: of the columns.
        colors: of the columns.
    """
    if len(table) >= _MIN_POINTS_OF_AREAS:
        axes.stackplot(table.index, table.to_numpy().T, labels=labels, colors=colors, linewidth=0)
    else:
        # Each logged value is a mean over the steps since the one before it.
        starts = np.array([0, *table.index[:-1]])
        widths = table.index.to_numpy() - starts
        bottom = np.zeros(len(table))
        for column, label, color in zip(table.to_numpy().T, labels, colors):
            axes.bar(starts + 0.5, column, 0.97 * widths, bottom, align="edge", label=label, color=color)
            bottom = bottom + column
    axes.margins(x=0)


def _reward(axes: Any, run: Run) -> bool:
    rate, reward = by_step(run, "hpt/solve_rate"), run.series("reward")
    if run.series("hpt/solve_rate").equals(reward.rename("hpt/solve_rate")):
        drawn = _curve(axes, rate, "solve rate, equal to mean reward", BLUE)
    else:
        drawn = _curve(axes, rate, "solve rate", BLUE)
        drawn |= _curve(axes, reward, "mean reward", GREEN, linestyle="--")
    for name in ("eval_hpt/solve_rate", "eval_reward"):
        if name in run.evaluations:
            values = run.evaluations[name].dropna()
            axes.plot(values.index, values, label="evaluation", color=PINK, marker="o", linestyle=":", markersize=5)
            drawn = True
            break
    axes.set_ylabel("solve rate, reward")
    if drawn and axes.get_ylim()[0] >= -0.1 and axes.get_ylim()[1] <= 1.1:
        axes.set_ylim(0, 1.02)
    return drawn


def _mark_warmup(axes: Any, run: Run) -> None:
    """Mark the last logged step of the SFT warm-up, if there was one."""
    warmup = run.series("hpt/warmup")
    steps = warmup[warmup > 0].index
    if len(steps) and len(steps) < len(warmup):
        axes.axvline(steps.max(), color="black", linestyle="--", linewidth=1.5, label="end of SFT warm-up")


def _sources(axes: Any, run: Run) -> bool:
    axes.set_ylabel("fraction of prompts")
    share = by_step(run, "hpt/demonstration_share")
    drawn = _shares(
        axes,
        ((share, "demonstration", ORANGE), ((1 - share).rename("rollouts"), "rollouts only", BLUE)),
    )
    _mark_warmup(axes, run)
    return drawn


def _groups(axes: Any, run: Run) -> bool:
    axes.set_ylabel("fraction of prompts")
    none, every = by_step(run, "hpt/none_solved"), by_step(run, "hpt/all_solved")
    some = (1 - none - every).clip(lower=0).rename("some")
    return _shares(axes, ((none, "none solved", VERMILLION), (some, "some solved", SKY), (every, "all solved", GREEN)))


def _entropy(axes: Any, run: Run) -> bool:
    axes.set_ylabel("entropy, nats per token")
    drawn = _curve(axes, run.series("entropy"), "mean over rollouts", BLUE)
    _from_zero(axes, drawn)
    return drawn


def _lengths(axes: Any, run: Run) -> bool:
    axes.set_ylabel("tokens")
    drawn = _curve(axes, run.series("completions/mean_length"), "mean", BLUE)
    drawn |= _curve(axes, run.series("completions/max_length"), "maximum", SKY, linestyle="--", linewidth=1.5)
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
    # Steps without demonstrations have no value, so these are points, with a line only through many of them.
    axes.plot(values.index, values, color=ORANGE, marker="o", linestyle="none", markersize=3.5, alpha=0.7)
    if len(values) >= _MIN_POINTS_TO_SMOOTH:
        mean = values.rolling(len(values) // 10, center=True, min_periods=1).mean()
        axes.plot(mean.index, mean, color=VERMILLION, linewidth=2, label="moving average")
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


def _learning_rate(axes: Any, run: Run) -> bool:
    axes.set_ylabel("learning rate")
    drawn = _curve(axes, run.series("learning_rate"), "_", BLUE)  # without a legend
    _from_zero(axes, drawn)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    return drawn


def _kl(axes: Any, run: Run) -> bool:
    axes.set_ylabel("KL, nats per token")
    return _curve(axes, run.series("kl"), "KL to the reference model", BLUE)


_CLIPPED = (("clip_ratio/low_mean", "below", SKY), ("clip_ratio/high_mean", "above", VERMILLION))


def _clipped(axes: Any, run: Run) -> bool:
    axes.set_ylabel("fraction of tokens")
    columns = [(run.series(name), label, color) for name, label, color in _CLIPPED]
    if not any(values.max() > 0 for values, _, _ in columns):
        return False
    for values, label, color in columns:
        _curve(axes, values, label, color)
    _from_zero(axes, True)
    return True


def _time(axes: Any, run: Run) -> bool:
    axes.set_ylabel("seconds per step")
    step = run.series("step_time")
    if step.empty:
        return False
    parts = [run.series(f"time/{part}") for part in ("generation", "verdicts")]
    if any(part.empty for part in parts):
        _curve(axes, step, "total", BLUE)
        _from_zero(axes, True)
        return True
    table = pd.concat([step, *parts], axis=1).dropna()
    if len(table) >= _MIN_POINTS_TO_SMOOTH:
        table = table.rolling(max(3, len(table) // 20), center=True, min_periods=1).mean()
    total, generation, rewards = (table.iloc[:, column] for column in range(3))
    areas = pd.concat([generation, rewards, (total - generation - rewards).clip(lower=0)], axis=1)
    _stacked(axes, areas, ["generation", "reward functions", "training"], [BLUE, ORANGE, GREEN])
    return True


_VERDICTS = (
    ("right", "correct", GREEN), ("wrong", "wrong", BLUE), ("unparseable_answer", "no answer", ORANGE),
    ("unparseable_gold", "bad solution", PINK), ("timed_out", "timed out", VERMILLION),
)  # fmt: skip


def _verdicts(axes: Any, run: Run) -> bool:
    axes.set_ylabel("fraction of rollouts")
    columns = [(run.series(f"verdicts/{kind}"), label, color) for kind, label, color in _VERDICTS]
    # Kinds that never occurred are left out of the legend.
    return _shares(axes, [column for column in columns if column[0].max() > 0] or columns)


def _from_zero(axes: Any, is_drawn: bool) -> None:
    if is_drawn:
        axes.set_ylim(0, axes.get_ylim()[1])


def _gate_map(arrange: Callable, shows_share: bool) -> Callable[[Any, Run], bool]:
    """A function that draws the gate's solve rates, or its weights on demonstrations, prompt by prompt."""

    def draw(axes: Any, run: Run) -> bool:
        from matplotlib.colors import LinearSegmentedColormap

        if run.gate is None or run.gate.empty or (arrange is prompt_map and not has_repeated_prompts(run.gate)):
            return False
        values = gate_share(run.gate) if shows_share else run.gate["solve_rate"]
        if values.isna().all():
            return False
        matrix, steps = arrange(run.gate, values)
        colors = LinearSegmentedColormap.from_list("sources", [BLUE, "#B8B8B8", ORANGE]) if shows_share else "cividis"
        # Rollouts recorded at step s are generated after s steps, so step s + 1 is trained on them.
        extent = (steps[0] + 0.5, steps[-1] + 1.5, 0, matrix.shape[0])
        image = axes.imshow(
            matrix, cmap=colors, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="none", extent=extent
        )
        bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.035, 1)), ticks=[0, 0.5, 1])
        bar.set_label("weight on the demonstration" if shows_share else "solve rate", fontsize=8, labelpad=2)
        bar.outline.set_visible(False)
        axes.set_ylabel("prompts of the step" if arrange is step_map else "prompts")
        axes.yaxis.get_major_locator().set_params(integer=True)
        return True

    return draw


_NO_GATE = "No gate.parquet: this run did not record its gate."
_NO_HISTORY = "Each prompt was sampled about once, so there is no history to show."

PANELS = (
    Panel("reward", "Reward and solve rate", "Solve rate: fraction of rollouts that solved their prompt. Mean reward: "
          "summed over reward functions.", _reward, "No reward was logged.",
          ("hpt/solve_rate", "reward")),
    Panel("sources", "Prompts on demonstrations and on rollouts", "Fraction of each step's prompts that the gate "
          "trained on their demonstration.", _sources,
          "No demonstration share was logged: this trainer does not use demonstrations.",
          ("hpt/demonstration_share",)),
    Panel("groups", "Solved and unsolved groups", "Groups in which all rollouts get the same reward provide no policy "
          "gradient.", _groups, "Solved and unsolved groups were not logged.", ("hpt/none_solved", "hpt/all_solved")),
    Panel("gate_solve_rate", "Gate: solve rate by step", "Each column is a step. Its prompts are stacked by solve "
          "rate, with the hardest at the bottom.", _gate_map(step_map, False), _NO_GATE),
    Panel("gate_sources", "Gate: demonstrations by step", "The same prompts in the same order. The hardest ones, at "
          "the bottom, are trained on their demonstration.", _gate_map(step_map, True), _NO_GATE),
    Panel("questions_solve_rate", "Repeated prompts: solve rate", "Each row is a prompt, with the hardest at the "
          "bottom. A value is held until the prompt is sampled again.", _gate_map(prompt_map, False), _NO_HISTORY),
    Panel("questions_sources", "Repeated prompts: demonstrations", "The same prompts in the same order.",
          _gate_map(prompt_map, True), _NO_HISTORY),
    Panel("nll", "NLL of the demonstrations", "Mean over the tokens of the step's demonstrations. Lower is better.",
          _nll, "No step was trained on a demonstration.", ("demonstrations/nll",)),
    Panel("entropy", "Entropy", "Entropy of the policy's next-token distribution. Near 0, the rollouts of a prompt are "
          "nearly identical.", _entropy, "No entropy was logged.", ("entropy",)),
    Panel("lengths", "Lengths", "In tokens. A rollout at the limit was truncated.", _lengths,
          "No lengths were logged.",
          ("completions/mean_length", "completions/max_length", "demonstrations/length")),
    Panel("gradient", "Gradient norm", "Before clipping, with the steps that were skipped because of it.", _gradient,
          "No gradient norm was logged.", ("grad_norm", "hpt/skipped_steps")),
    Panel("learning_rate", "Learning rate", "Of the first parameter group, at the end of each logged step.",
          _learning_rate, "No learning rate was logged.", ("learning_rate",)),
    Panel("kl", "KL divergence", "Of the policy from the reference model, on the rollouts.", _kl,
          "No KL divergence was logged: beta was 0.", ("kl",)),
    Panel("clipped", "Clipped tokens", "Fraction of the rollouts' tokens whose probability ratio was clipped, below "
          "and above.", _clipped, "No probability ratio was clipped.", tuple(name for name, _, _ in _CLIPPED)),
    Panel("time", "Time per step", "Training covers the forward and backward passes, without the optimizer update.",
          _time, "No step time was logged.", ("step_time", "time/generation", "time/verdicts")),
    Panel("verdicts", "Verdicts", "The verifier's verdicts on the rollouts.", _verdicts,
          "No verdicts were logged: accuracy_reward was not among the reward functions.",
          tuple(f"verdicts/{kind}" for kind, _, _ in _VERDICTS)),
)  # fmt: skip
