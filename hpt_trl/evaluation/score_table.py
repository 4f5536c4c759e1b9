"""Shows scores as a table and as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from hpt_trl.common.escaping import figure_text
from hpt_trl.common.masking import mask_tokens
from hpt_trl.evaluation.scores import INTERVALS, Estimate, SuiteScore, by_group, group_average

# Okabe and Ito's palette, which color-blind readers can distinguish; it repeats with another line style.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--")
# More intervals than this would overlap and hide the curves; the table shows all of them.
_MAX_BANDS = 3
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def score_table(
    scores: Mapping[str, SuiteScore], pass_at: Sequence[int], title: str = "", notes: Sequence[str] = ()
) -> Table:
    """A rich table with one row per suite and one row per group average.

    Args:
        scores: scores by suite.
        pass_at: values of k of the pass@k columns.
        title: title above the table.
        notes: notes below the table, after those on the verifier.
    """
    caption = "\n".join([*_verifier_notes(scores), *notes])
    table = Table(
        title=escape(mask_tokens(title)),
        title_justify="left",
        caption=escape(mask_tokens(caption)),
        caption_justify="left",
    )
    table.add_column("suite")
    for name in ("avg@k", *(f"pass@{k}" for k in pass_at), "truncated", "tokens"):
        table.add_column(name, justify="right", overflow="fold")
    for group, members in by_group(scores).items():
        for score in members:
            table.add_row(
                f"{escape(mask_tokens(score.title))}\n[dim]{len(score.right)} problems, k = {score.samples}[/]",
                _cell(score.average),
                *(_cell(score.pass_at.get(k)) for k in pass_at),
                f"{100 * score.cut_share:.1f}",
                f"{score.mean_tokens:.0f}",
            )
        if group and group_average(members) is not None:
            averages = [_cell(group_average(members, k)) for k in (1, *pass_at)]
            table.add_row(f"[bold]average {group}[/]\n[dim]{len(members)} suites[/]", *averages, "", "")
        table.add_section()
    return table


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f}\n[dim]{100 * estimate.low:.1f}-{100 * estimate.high:.1f}[/]"


def _verifier_notes(scores: Mapping[str, SuiteScore]) -> list[str]:
    notes = [
        f"Scores in %, each above its 95% interval ({INTERVALS}).",
        "truncated: completions that reached the maximum length, in %. tokens: mean completion length.",
    ]
    for score in scores.values():
        if score.unreadable_golds:
            notes.append(
                f"{score.title}: the verifier cannot parse the solution of {score.unreadable_golds} problems; they "
                "count as unsolved."
            )
        if timed_out := score.verdicts.get("timed out"):
            notes.append(f"{score.title}: the verifier timed out on {timed_out} completions; they count as wrong.")
    return notes


def plot_scores(scores: Mapping[str, SuiteScore], path: str | Path, title: str = "") -> None:
    """Plot avg@k of every suite, and pass@k over k for suites with several samples, as one PNG file."""
    from matplotlib.figure import Figure

    styles = {
        name: {"color": _COLORS[i % 7], "linestyle": _LINES[i // 7 % 2], "marker": _MARKERS[i % 7]}
        for i, name in enumerate(scores)
    }
    curves = {name: score for name, score in scores.items() if score.samples > 1 and score.pass_at}
    height = max(3.6 if curves else 2.0, 0.42 * len(scores) + 1.6)
    figure = Figure(figsize=(11 if curves else 6, height), layout="constrained")
    panels = figure.subplots(1, 2 if curves else 1, squeeze=False, width_ratios=[1, 1.25] if curves else [1])[0]
    _draw_averages(panels[0], scores, styles)
    if curves:
        _draw_curves(panels[1], curves, styles)
    if title:
        figure.suptitle(figure_text(title), fontsize=11, color="0.25")
    figure.savefig(path, dpi=150)


def _draw_averages(axes: Any, scores: Mapping[str, SuiteScore], styles: Mapping[str, dict[str, Any]]) -> None:
    for row, (name, score) in enumerate(scores.items()):
        mean = score.average
        style = styles[name]
        axes.plot([100 * mean.low, 100 * mean.high], [row, row], color=style["color"], linewidth=2.5, alpha=0.45)
        axes.plot(100 * mean.value, row, color=style["color"], marker=style["marker"], markersize=7)
        axes.annotate(
            f"{100 * mean.value:.1f}", (100 * mean.value, row), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=9, color="0.25",
        )  # fmt: skip
    axes.set_yticks(
        range(len(scores)), [figure_text(f"{score.title} (k = {score.samples})") for score in scores.values()]
    )
    axes.set_ylim(len(scores) - 0.4, -0.7)
    axes.set_xlim(-3, 103)
    axes.set(title="avg@k and its 95% interval", xlabel="avg@k (%)")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_curves(axes: Any, scores: Mapping[str, SuiteScore], styles: Mapping[str, dict[str, Any]]) -> None:
    ticks: set[int] = {1}
    for name, score in scores.items():
        points = {1: score.average} | score.pass_at
        ks = sorted(points)
        ticks |= set(ks)
        low, high = ([100 * getattr(points[k], end) for k in ks] for end in ("low", "high"))
        if len(scores) <= _MAX_BANDS:
            axes.fill_between(ks, low, high, color=styles[name]["color"], alpha=0.12, linewidth=0)
        axes.plot(ks, [100 * points[k].value for k in ks], label=figure_text(score.title), markersize=5, **styles[name])
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [str(k) for k in sorted(ticks)])
    axes.minorticks_off()
    axes.set_ylim(0, 103)
    axes.set(title="pass@k: at least one of k samples is correct", xlabel="k (samples)", ylabel="pass@k (%)")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # List the curves in the order of their right ends, so that they are easy to identify.
    handles, labels = axes.get_legend_handles_labels()
    ends = [score.pass_at[max(score.pass_at)].value for score in scores.values()]
    order = sorted(range(len(ends)), key=lambda i: -ends[i])
    axes.legend([handles[i] for i in order], [labels[i] for i in order], frameon=False, loc="center left",
                bbox_to_anchor=(1.0, 0.5))  # fmt: skip
