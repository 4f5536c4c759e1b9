"""`hpt-trl report RUN_DIR [RUN_DIR2]`: what a run did, as one HTML page without network, and its pictures as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.common.command_line import parse, run_errors, user_errors
from hpt_trl.common.errors import RunError
from hpt_trl.report.charts import PANELS
from hpt_trl.report.page import render
from hpt_trl.report.render import write_png
from hpt_trl.report.run_folder import Run, read_run

PAGE_NAME = "report.html"


@dataclass
class ReportArguments:
    """
    Which runs, and where to write.

    Args:
        run_dirs (`list[str]`): The output_dir of a run, or of two, to be shown side by side.
        output (`str`, *optional*): Folder of the page and the pictures; by default `_report` in the first run's folder,
            which its underscore keeps from the Hub.
    """

    run_dirs: list[str] = field(metadata={"help": "output_dir of a run, or of two, finished or not."})
    output: str | None = field(default=None, metadata={"help": "Folder to write; by default RUN_DIR/_report."})

    def __post_init__(self) -> None:
        if not 1 <= len(self.run_dirs) <= 2:
            raise ValueError(f"report shows one run or two side by side, got {len(self.run_dirs)} folders.")


def write_report(runs: Sequence[Run], output: str | Path) -> Path:
    """Write `report.html` and a PNG for every panel that the runs have something for.

    Args:
        runs: one or two, from [`~hpt_trl.runs.read_run`].
        output: the folder, which is made if need be.

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
    """Read the runs and write their report; returns the page's path.

    Raises:
        RunError: if a folder is not a run's, or the report cannot be written.
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
    with run_errors(prog):
        print(f"Report written to {report(args)}.")
