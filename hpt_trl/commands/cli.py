"""The command line `hpt-trl`."""

import logging
import sys
from importlib import import_module

COMMANDS = {
    "train": "train a model by HPT: --config FILE.yaml, and any option of HPTConfig",
    "evaluate": "count how many problems a model solves",
    "report": "what a run did, or two side by side: a page and its pictures",
    "prepare": "turn a data set, or a GGUF model, into what the trainer takes",
    "push": "bring a run's model card up to date, and its folder to the Hub",
    "benchmark": "what a step costs beside GRPOTrainer's on this machine",
    "compare": "HPT against its baselines on miniature models, with seeds and intervals",
    "quickstart": "HPT on the embedded model, before and after, in minutes on a CPU",
}


def usage() -> str:
    """One line a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: hpt-trl COMMAND [options]; hpt-trl COMMAND --help for its options", "", *lines])


def main() -> None:
    """Hand the rest of the command line to the module of the command."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command not in COMMANDS:
        print(f"hpt-trl: error: there is no command {command!r}.\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    # Where bitsandbytes is installed, it tells at import of a kernel that it does without.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # The modules import torch and TRL: only the one that is needed.
    import_module(f"hpt_trl.commands.{command}").main(argv)


if __name__ == "__main__":
    main()
