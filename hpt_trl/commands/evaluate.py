"""`hpt-trl evaluate`: avg@k and pass@k of a model on the paper's benchmark suites or on your own problems."""

import sys
from collections.abc import Sequence

from rich.console import Console

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.logs import say
from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.evaluate import run
from hpt_trl.evaluation.score_table import score_table


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl evaluate`."""
    prog = "hpt-trl evaluate"
    with user_errors(prog):
        (args,) = parse((EvaluateArguments,), argv, prog)
        result = run(args)
    # Output that is piped into a file has no window width to fit.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(score_table(result.scores, result.pass_at, result.title, result.notes))
    if args.output:
        say(f"Results written to {args.output}.")
