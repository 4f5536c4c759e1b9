"""Command lines on TRL's parser, and errors as one paragraph instead of a traceback."""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml
from trl import TrlParser

from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.masking import mask_tokens

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)


class Parser(TrlParser):
    """TRL's parser, whose errors are raised instead of printed behind three hundred lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See `{self.prog} --help`.")


def parse(
    dataclass_types: Sequence[Any], argv: Sequence[str], prog: str, first_option: str | None = None
) -> tuple[Any, ...]:
    """Parse flags, and the YAML file named by `--config`, into dataclasses; flags win over the file.

    Args:
        dataclass_types: what to make.
        argv: what stood behind the command.
        prog: the command, for messages.
        first_option: the option that values before the first flag belong to.

    Raises:
        ValueError: for an unknown key, a value of the wrong type, or a file that is not a YAML mapping or sets the
            environment.
        FileNotFoundError: if the file does not exist.
    """
    if first_option and argv and not argv[0].startswith("-"):
        argv = [f"--{first_option}", *argv]
    if "--config" in argv[:-1]:
        _check_yaml(Path(argv[argv.index("--config") + 1]))
    return Parser(dataclass_types, prog=prog).parse_args_and_config(argv)


def _check_yaml(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"The config file {str(path)!r} does not exist. Give the path of a YAML file.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        # Without the line itself, which may hold a token.
        place = (
            f" in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
            if error.problem_mark
            else ""
        )
        raise ValueError(
            f"The config file {str(path)!r} is not readable as YAML: {error.problem}{place}. Mend that place."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The config file {str(path)!r} is not readable as YAML: {error}. Mend that place.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"The config file {str(path)!r} must hold `key: value` lines, got {type(content).__name__}: "
            f"{str(content)[:80]!r}."
        )
    if "env" in content:
        raise ValueError(
            f"The config file {str(path)!r} sets environment variables by `env`, and some of them name programs to "
            "run. Remove it and set them in the shell."
        )


def _one_paragraph(error: Exception) -> str:
    # A misspelt `--hub_token` is quoted with what stood behind it, and a reward function may quote anything.
    return mask_tokens(" ".join(str(error).split()))


@contextmanager
def run_errors(prog: str) -> Iterator[None]:
    """Turn a fault that a user can mend into one paragraph on stderr and exit code 1. HPT_TRACEBACK=1 shows it all."""
    try:
        yield
    except RunError as error:
        if os.environ.get("HPT_TRACEBACK"):
            raise
        if isinstance(error, LocalRunError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{prog}: error: {_one_paragraph(error)}", file=sys.stderr)
        raise SystemExit(1) from None


@contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Turn what a user can mend into one paragraph on stderr and exit code 2. Set HPT_TRACEBACK=1 to see it all."""
    # TRL 1.16 still calls what transformers 5.23 renamed: nothing a user could do about it.
    warnings.filterwarnings("ignore", message=r".*deprecated and will be removed in v6.*", category=FutureWarning)
    # Part of what a model learned from, and no data set.
    warnings.filterwarnings("ignore", message=r".*about to commit a data file \(\S*gate\.parquet\)")
    try:
        yield
    except USER_ERRORS as error:
        if os.environ.get("HPT_TRACEBACK"):
            raise
        # Once a machine: what is missing on one node need not be missing on another.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"{prog}: error: {_one_paragraph(error)}", file=sys.stderr)
        raise SystemExit(2) from None
