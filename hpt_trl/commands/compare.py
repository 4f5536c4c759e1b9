"""`hpt-trl compare`: compare HPT with its baselines on miniature models, over several seeds, with intervals."""

import os
import sys
from collections.abc import Sequence

import torch

# Set before TRL is imported, so that this process and its forks make no network requests.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.logs import say
from hpt_trl.comparison.plan import Comparison
from hpt_trl.comparison.report import write_report
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.summary import summarize


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl compare`."""
    prog = "hpt-trl compare"
    # One thread per run: models this small gain nothing from more, and forked processes do not inherit thread pools.
    torch.set_num_threads(1)
    with user_errors(prog):
        (args,) = parse((CompareArguments,), argv, prog)
        comparison = Comparison(args, report_progress=say)
        comparison.run()
        summary = summarize(args, comparison.results, comparison.rates, comparison.folder / "runs")
        kind = "report_small" if args.small else "report_map" if args.regimes else "report"
        path = write_report(summary, comparison.folder / kind)
        say(f"Report written to {path}.")


if __name__ == "__main__":
    main(sys.argv[1:])
