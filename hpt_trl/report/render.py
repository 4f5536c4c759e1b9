"""Draws panels as SVG, for a page that can be light or dark, and as PNG files."""

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hpt_trl.common.escaping import figure_text
from hpt_trl.report.charts import BLUE, GREEN, GREY, ORANGE, PANELS, PINK, SKY, VERMILLION, Panel
from hpt_trl.report.run_folder import Run, read_run

INK, MUTED, GRID = "#1B1F24", "#57606A", "#DDE1E6"
# Colors that the style sheet of the page can replace in dark mode.
_VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", BLUE: "blue", ORANGE: "orange", GREEN: "green", VERMILLION: "vermillion",
    PINK: "pink", SKY: "sky", GREY: "grey",
}  # fmt: skip
# In inches; as wide as the page on a phone, so that text keeps its size there.
_WIDTH, _HEIGHT = 4.1, 2.7
_FRAME = (0.14, 0.17, 0.68, 0.7)  # of the axes, in fractions of the figure; a color bar has its place to the right


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
    """Draw a panel with its axis and legend; return False and hide the axes if the run has no data for it."""
    if not panel.draw(axes, run):
        axes.set_axis_off()
        return False
    axes.set_xlabel("optimizer step")
    # All steps, so that the same step is at the same place in every chart of a run.
    axes.set_xlim(0.5, max(run.steps, 1) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.images:
        axes.grid(False)
    labels = axes.get_legend_handles_labels()[1]
    if labels:
        # Above the axes, where it cannot cover the data.
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=min(4, len(labels)), frameon=False, handlelength=1.4,
            columnspacing=1.1, handletextpad=0.5, borderaxespad=0.1,
        )  # fmt: skip
    return True


def _share_axes(axes: Sequence[Any]) -> None:
    """Give the same panel of several runs the same scales."""
    if len({plot.get_yscale() for plot in axes}) > 1:
        # One of them contains a zero, which a logarithmic scale cannot show.
        for plot in axes:
            plot.set_yscale("linear")
            plot.set_ylim(bottom=0)
    lows, highs = zip(*(plot.get_ylim() for plot in axes))
    lefts, rights = zip(*(plot.get_xlim() for plot in axes))
    for plot in axes:
        plot.set_xlim(min(lefts), max(rights))
        if not plot.images:
            plot.set_ylim(min(lows), max(highs))


def panel_svgs(panel: Panel, runs: Sequence[Run]) -> list[str | None]:
    """Draw one `<svg>` per run, on the same scales; None for a run without data.

    Colors are variables of the page's style sheet: `--ink`, `--muted`, `--grid` and those of the curves.
    """
    from matplotlib.figure import Figure

    svgs: list[str | None] = [None] * len(runs)
    drawn = {}
    for number, run in enumerate(runs):
        with _style(f"{panel.name}{number}"):
            figure = Figure(figsize=(_WIDTH, _HEIGHT))
            axes = figure.add_axes(_FRAME)
            if _draw(panel, axes, run):
                drawn[number] = (figure, axes)
    if drawn:
        _share_axes([axes for _, axes in drawn.values()])
    for number, (figure, _) in drawn.items():
        with _style(f"{panel.name}{number}"):
            svgs[number] = _svg(figure, f"{panel.name}{number}", panel.title)
    return svgs


def _svg(figure: Any, name: str, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = re.sub(color, f"var(--{variable})", text, flags=re.IGNORECASE)
    # Ids must be unique in a page, but matplotlib uses the same ids in every figure.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    # Inline SVG needs no namespaces, and the page should not contain any URL.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    # A fixed size would keep the figure from shrinking on a narrow page.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', text, count=1)
    return text


def write_png(panels: Sequence[Panel], runs: Sequence[Run], path: str | Path) -> bool:
    """Draw one panel of several runs, or several panels of one run, side by side as a PNG file with 150 dpi.

    Returns:
        Whether there was data to draw; if not, no file is written.
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
            title = panel.title if len(runs) == 1 else figure_text(f"{panel.title}: {run.name}")
            axes.set_title(title, fontsize=10, pad=20 if axes.get_legend() else 6, loc="left")
            if not axes.axison:
                axes.text(0.5, 0.5, panel.missing, ha="center", va="center", wrap=True, transform=axes.transAxes)
        if len(panels) == 1:
            _share_axes(drawn)
        figure.savefig(path, dpi=150)
    return True


def plot_run(run_dir: str | Path, path: str | Path) -> None:
    """Plot reward and solve rate, demonstration share, and NLL of a run over optimizer steps as one PNG file.

    Raises:
        FileNotFoundError: if `run_dir` is not a run folder.
    """
    overview = [panel for panel in PANELS if panel.name in ("reward", "sources", "nll")]
    write_png(overview, [read_run(run_dir)], path)
