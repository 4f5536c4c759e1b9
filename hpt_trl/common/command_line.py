"""Command-line parsing with TRL's parser, and errors as one paragraph instead of a traceback."""

import argparse
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from hpt_trl.common.configs import config_file
from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.help_text import help_text
from hpt_trl.common.masking import mask_tokens

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
_CONTINUE_TRAINING = "`--resume_from_checkpoint auto` continues from a checkpoint."


class Parser(TrlParser):
    """TRL's parser, but it raises errors instead of printing them after hundreds of lines of usage."""

    def __init__(self, dataclass_types: Sequence[Any], prog: str) -> None:
        self.options: list[argparse.Action] = []
        # An abbreviation of `--hub_token` would not be recognized as a secret; YAML knows none either.
        super().__init__(dataclass_types, prog=prog, allow_abbrev=False)
        self.add_argument("--help-all", action=_CompleteHelp)

    def add_argument(self, *flags: Any, **options: Any) -> argparse.Action:
        self.options.append(super().add_argument(*flags, **options))
        return self.options[-1]

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See `{self.prog} --help`.")

    def format_help(self, is_complete: bool = False) -> str:
        return help_text(self.prog, self.dataclass_types, self.options, is_complete)


class _CompleteHelp(argparse.Action):
    """Prints the complete help and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS)

    def __call__(self, parser: Any, *values: Any) -> None:
        print(parser.format_help(is_complete=True), end="")
        parser.exit()


def parse(
    dataclass_types: Sequence[Any], argv: Sequence[str], prog: str, first_option: str | None = None
) -> tuple[Any, ...]:
    """Parse flags, and the YAML file given as `--config`, into dataclasses; flags override the file.

    Args:
        dataclass_types: the dataclasses to fill.
        argv: the arguments of the command.
        prog: the command, for messages.
        first_option: the option that receives the values before the first flag.

    Raises:
        ValueError: for an unknown key, a value of the wrong type, a file that is not a YAML mapping, or a file that
            sets environment variables.
        FileNotFoundError: if the file does not exist.
    """
    if first_option and argv and not argv[0].startswith("-"):
        argv = [f"--{first_option}", *argv]
    if "--config" in argv[:-1]:
        place = argv.index("--config") + 1
        path = config_file(argv[place])
        _check_yaml(path)
        argv = [*argv[:place], str(path), *argv[place + 1 :]]
    return Parser(dataclass_types, prog).parse_args_and_config(argv)


def _check_yaml(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
        json.dumps(content, default=str)
    except yaml.MarkedYAMLError as error:
        # Without the line itself, which may contain a token.
        mark = error.problem_mark
        location = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(
            f"The config file {str(path)!r} is not readable as YAML: {error.problem}{location}. Fix that line."
        ) from None
    # RecursionError: nested too deeply; json raises a ValueError where an alias contains itself.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"The config file {str(path)!r} is not readable as YAML: {error}. Fix the file.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"The config file {str(path)!r} must consist of `key: value` lines, got {type(content).__name__}: "
            f"{str(content)[:80]!r}."
        )
    if "env" in content:
        raise ValueError(
            f"The config file {str(path)!r} sets environment variables with `env`, some of which name programs to run. "
            "Remove `env` and set the variables in the shell."
        )


def _one_paragraph(error: Exception) -> str:
    # An error may quote the value of a misspelled `--hub_token`, and that of a reward function may quote anything.
    return mask_tokens(" ".join(str(error).split()))


@contextmanager
def run_errors(prog: str, how_to_continue: str = _CONTINUE_TRAINING) -> Iterator[None]:
    """Print a `RunError` as one paragraph on stderr and exit with code 1, and with 130 for Ctrl-C.

    With HPT_TRACEBACK=1, raise either.

    Args:
        prog: the command, for messages.
        how_to_continue: what to tell the user after Ctrl-C.
    """
    try:
        yield
    except RunError as error:
        if os.environ.get("HPT_TRACEBACK"):
            raise
        if isinstance(error, LocalRunError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{prog}: error: {_one_paragraph(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if os.environ.get("HPT_TRACEBACK"):
            raise
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{prog}: interrupted. {how_to_continue}".rstrip(), file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Print one of `USER_ERRORS` as one paragraph on stderr and exit with code 2; with HPT_TRACEBACK=1, raise it."""
    # TRL 1.16 uses names that transformers 5.23 has deprecated; users cannot do anything about it.
    warnings.filterwarnings("ignore", message=r".*deprecated and will be removed in v6.*", category=FutureWarning)
    # gate.parquet belongs to the model's training record; it is not a dataset.
    warnings.filterwarnings("ignore", message=r".*about to commit a data file \(\S*gate\.parquet\)")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may have bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("HPT_TRACEBACK"):
            raise
        # Once per machine, because a file that is missing on one node may exist on another.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{prog}: error: {_one_paragraph(error)}", file=sys.stderr)
        raise SystemExit(2) from None
