"""`hpt-trl report RUN_DIR [RUN_DIR2]`: a self-contained HTML report of one or two runs, and its charts as PNG files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.common.command_line import parse, run_errors, user_errors
from hpt_trl.common.errors import RunError
from hpt_trl.common.logs import say
from hpt_trl.report.charts import PANELS
from hpt_trl.report.page import render
from hpt_trl.report.render import write_png
from hpt_trl.report.run_folder import Run, read_run

PAGE_NAME = "report.html"


@dataclass
class ReportArguments:
    """
    Arguments of `hpt-trl report`.

    Args:
        run_dirs (`list[str]`): The `output_dir` of one run, or of two runs to compare side by side.
        output (`str`, *optional*): Folder for the page and the charts. Default: `_report` in the first run's folder;
            names that begin with an underscore are not uploaded to the Hub.
    """

    run_dirs: list[str] = field(metadata={"help": "output_dir of one run, or of two runs; they need not be finished."})
    output: str | None = field(
        default=None, metadata={"help": "Folder to write the report to. Default: RUN_DIR/_report."}
    )

    def __post_init__(self) -> None:
        if not 1 <= len(self.run_dirs) <= 2:
            raise ValueError(f"report takes one or two run folders, got {len(self.run_dirs)}.")


def write_report(runs: Sequence[Run], output: str | Path) -> Path:
    """Write `report.html`, and a PNG file for every panel for which the runs have data.

    Args:
        runs: one or two runs from [`~hpt_trl.runs.read_run`].
        output: folder to write to; created if it does not exist.

    Returns:
        Path of the page.

    Raises:
        OSError: if the folder cannot be written.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for panel in PANELS:
        write_png([panel], runs, folder / f"{panel.name}.png")
    page = folder / PAGE_NAME
    page.write_text(render(runs), encoding="utf-8")
    return page


def report(args: ReportArguments) -> Path:
    """Read the runs and write their report; return the path of the page.

    Raises:
        RunError: if a folder is not a run folder, or the report cannot be written.
    """
    try:
        runs = [read_run(folder) for folder in args.run_dirs]
        return write_report(runs, args.output or Path(args.run_dirs[0]) / "_report")
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl report`."""
    prog = "hpt-trl report"
    with user_errors(prog):
        (args,) = parse((ReportArguments,), argv, prog, "run_dirs")
    with run_errors(prog, how_to_continue=""):
        say(f"Report written to {report(args)}.")
