"""The command line `hpt-trl`."""

import difflib
import gc
import logging
import sys
from importlib import import_module

from hpt_trl.common.versions import versions_of

COMMANDS = {
    "train": "train a model with HPT, from a YAML config and command-line options",
    "evaluate": "measure avg@k and pass@k of a model on benchmarks or on your own problems",
    "report": "write an HTML report of one run, or of two runs side by side",
    "prepare": "convert a dataset (or a GGUF model) to training format",
    "demonstrate": "sample the demonstrations that a dataset lacks from a model, and keep what is right",
    "push": "update a run's model card and upload the run to the Hub",
    "benchmark": "benchmark one training step against GRPOTrainer",
    "compare": "compare HPT with its baselines on miniature models",
    "configs": "list the configs that come with the package, or print the path of one",
    "quickstart": "train the bundled model with GRPO and with HPT and compare them (minutes on a CPU)",
}


_LIGHT = ("configs",)  # commands that import nothing heavy


def usage() -> str:
    """Usage and the list of commands, one per line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    first = "usage: hpt-trl COMMAND [options]; hpt-trl COMMAND --help lists the options, hpt-trl --version the versions"
    return "\n".join([first, "", *lines])


def versions() -> str:
    """The installed versions of this package and of those that it builds on, in one line."""
    found = versions_of(("torch", "transformers", "trl", "accelerate"))
    return ", ".join(f"{package} {version}" for package, version in found.items())


def main() -> None:
    """Run the named command with the remaining arguments."""
    command, *argv = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(usage())
        return
    if command == "--version":
        print(versions())
        return
    if command not in COMMANDS:
        similar = difflib.get_close_matches(command, [*COMMANDS, "--help", "--version"], n=1)
        hint = f" Did you mean {similar[0]}?" if similar else ""
        print(f"hpt-trl: error: unknown command {command!r}.{hint}\n{usage()}", file=sys.stderr)
        raise SystemExit(2)
    if command in _LIGHT:
        import_module(f"hpt_trl.commands.{command}").main(argv)
        return
    from hpt_trl.commands.early_checks import check_paths
    from hpt_trl.common.command_line import user_errors

    with user_errors(f"hpt-trl {command}"):
        check_paths(command, argv)
    # bitsandbytes, if installed, warns at import about a CPU kernel that is not available.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        print(f"hpt-trl {command}: loading PyTorch, transformers and TRL (some seconds)", file=sys.stderr)
    try:
        # Import only the module that is needed: most of them import torch and TRL.
        import_module(f"hpt_trl.commands.{command}").main(argv)
    finally:
        # Otherwise the interpreter examines every object of torch once more when it ends, for more than a second.
        gc.freeze()


if __name__ == "__main__":
    main()
