"""Panels of runs -> SVG for a page that is light or dark, and PNG files."""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hpt_trl.report.charts import BLUE, GREEN, GREY, ORANGE, PANELS, PINK, SKY, VERMILLION, Panel
from hpt_trl.report.run_folder import Run, read_run

INK, MUTED, GRID = "#1B1F24", "#57606A", "#DDE1E6"
# What a page may show in another colour when it is dark; its style sheet says which.
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue", ORANGE: "orange", GREEN: "green", VERMILLION: "vermillion",
    PINK: "pink", SKY: "sky", GREY: "grey",
}  # fmt: skip
# As wide as a phone's page, so that letters keep their size there.
_WIDTH, _HEIGHT = 4.1, 2.7


def _style(salt: str) -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 8.5,
            "text.color": INK, "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED,
            "axes.edgecolor": GREY, "grid.color": GRID, "axes.spines.top": False, "axes.spines.right": False,
            "axes.grid": True, "axes.xmargin": 0.02, "axes.axisbelow": True, "svg.fonttype": "none",
            "svg.hashsalt": salt,
        }
    )  # fmt: skip


def _draw(panel: Panel, axes: Any, run: Run) -> bool:
    """Draw a panel with its axis and legend; False, and empty axes, if the run has nothing for it."""
    if not panel.draw(axes, run):
        axes.set_axis_off()
        return False
    axes.set_xlabel("optimizer step")
    if len(run.log) > 1 and not axes.images:
        # All steps, also where a metric was logged in few of them.
        axes.update_datalim([(step, axes.dataLim.y0) for step in (run.log.index.min(), run.log.index.max())])
        axes.autoscale_view(scaley=False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.images:
        axes.grid(False)
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        # Above the axes, where no data can be.
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=min(4, len(labels)), frameon=False, handlelength=1.4,
            columnspacing=1.1, handletextpad=0.5, borderaxespad=0.1,
        )  # fmt: skip
    return True


def _share_axes(axes: Sequence[Any]) -> None:
    """Give the same panel of several runs the same scales."""
    if len({each.get_yscale() for each in axes}) > 1:
        # One of them has a zero, which a logarithmic scale cannot show.
        for each in axes:
            each.set_yscale("linear")
            each.set_ylim(bottom=0)
    lows, highs = zip(*(each.get_ylim() for each in axes))
    lefts, rights = zip(*(each.get_xlim() for each in axes))
    for each in axes:
        each.set_xlim(min(lefts), max(rights))
        if not each.images:
            each.set_ylim(min(lows), max(highs))


def panel_svgs(panel: Panel, runs: Sequence[Run]) -> list[str | None]:
    """One `<svg>` a run, on the same scales; None for a run that has nothing for it.

    Colours are variables of the page's style sheet: `--ink`, `--muted`, `--grid` and those of the curves.
    """
    from matplotlib.figure import Figure

    found: list[str | None] = [None] * len(runs)
    drawn = {}
    for number, run in enumerate(runs):
        with _style(f"{panel.name}{number}"):
            figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
            axes = figure.add_subplot()
            if _draw(panel, axes, run):
                drawn[number] = (figure, axes)
    if drawn:
        _share_axes([axes for _, axes in drawn.values()])
    for number, (figure, _) in drawn.items():
        with _style(f"{panel.name}{number}"):
            found[number] = _svg(figure, f"{panel.name}{number}", panel.title)
    return found


def _svg(figure: Any, name: str, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = re.sub(colour, f"var(--{variable})", text, flags=re.IGNORECASE)
    # Names are unique in a page, and each picture calls its first figure, axes and text by the same ones.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    # In a page, names of schemas are not needed, and nothing in it shall look like an address.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # A size of its own would keep it from shrinking with a narrow page.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', text, count=1)
    return text


def write_png(panels: Sequence[Panel], runs: Sequence[Run], path: str | Path) -> bool:
    """Draw one panel of one or more runs, or several panels of one run, in a line, into a PNG of 150 dots per inch.

    Returns:
        Whether there was something to draw; if not, no file is written.
    """
    from matplotlib.figure import Figure

    with _style(""):
        count = max(len(panels), len(runs))
        figure = Figure(figsize=(_WIDTH * count, _HEIGHT + 0.35), layout="constrained")
        grid = figure.subplots(1, count, squeeze=False)[0]
        pairs = [(panel, run) for panel in panels for run in runs]
        drawn = [axes for axes, (panel, run) in zip(grid, pairs) if _draw(panel, axes, run)]
        if not drawn:
            return False
        for axes, (panel, run) in zip(grid, pairs):
            title = panel.title if len(runs) == 1 else f"{panel.title}: {run.name}"
            axes.set_title(title, fontsize=10, pad=20 if axes.get_legend() else 6, loc="left")
            if not axes.axison:
                axes.text(0.5, 0.5, panel.missing, ha="center", va="center", wrap=True, transform=axes.transAxes)
        if len(panels) == 1:
            _share_axes(drawn)
        figure.savefig(path, dpi=150)
    return True


def plot_run(run_dir: str | Path, picture: str | Path) -> None:
    """Draw reward and solve rate, what prompts learned from, and NLL over optimizer steps into one PNG.

    Raises:
        FileNotFoundError: if the folder is not a run's.
    """
    overview = [panel for panel in PANELS if panel.name in ("reward", "sources", "nll")]
    write_png(overview, [read_run(run_dir)], picture)
