"""Command-line parsing with TRL's parser, and errors as one paragraph instead of a traceback."""

import argparse
import difflib
import io
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from trl import TrlParser

from hpt_trl.common.configs import config_file
from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.common.help_text import help_text
from hpt_trl.common.masking import mask_tokens

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
_KINDS: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false"}
_CONTINUE_TRAINING = "`--resume_from_checkpoint auto` continues from a checkpoint."


class Parser(TrlParser):
    """TRL's parser, but it raises errors in the words of the user instead of printing them after the usage."""

    def __init__(self, dataclass_types: Sequence[Any], prog: str) -> None:
        self.options: list[argparse.Action] = []
        self.kinds: dict[str, type] = {}
        # An abbreviation of `--hub_token` would not be recognized as a secret; YAML knows none either.
        super().__init__(dataclass_types, prog=prog, allow_abbrev=False, exit_on_error=False)
        self.add_argument("--help-all", action=_CompleteHelp)
        for dataclass_type in dataclass_types:
            self.kinds |= {name: kind for name, hint in get_type_hints(dataclass_type).items() if (kind := _kind(hint))}

    def add_argument(self, *flags: Any, **options: Any) -> argparse.Action:
        if options.get("type") is not None:
            name = flags[0].removeprefix("--")
            options["type"] = partial(self._converted, name, options["type"], options.get("choices"))
        self.options.append(super().add_argument(*flags, **options))
        return self.options[-1]

    def _converted(self, name: str, convert: Callable[[str], Any], choices: Sequence[Any] | None, text: str) -> Any:
        """The value of an option's text; an error says what the option takes."""
        try:
            value = convert(text)
            is_valid = not choices or value in choices
        except (ValueError, argparse.ArgumentTypeError):
            is_valid = False
        if not is_valid:
            wanted = f"one of {', '.join(map(str, choices))}" if choices else _KINDS.get(self.kinds.get(name), "valid")
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See `{self.prog} --help`.")

    def format_help(self, is_complete: bool = False) -> str:
        return help_text(self.prog, self.dataclass_types, self.options, is_complete)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        for argument in args or ():
            self._check_flag(argument.partition("=")[0])
        try:
            namespace, unused = super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            name = (error.argument_name or "").partition("/")[0].removeprefix("--")
            problem = error.message.replace("expected one argument", "needs a value").rstrip(".")
            self.error(f"{name} {problem.replace('expected at least one argument', 'needs at least one value')}")
        if unused:
            is_name = unused[0].replace("-", "_") in {option.dest for option in self.options}
            hint = f"Write --{unused[0]}" if is_name else "Options are written as --NAME VALUE"
            self.error(f"The value {unused[0]!r} belongs to no option. {hint}")
        return namespace, unused

    def _check_flag(self, argument: str) -> None:
        known = [flag for option in self.options for flag in option.option_strings]
        if argument.startswith("--") and argument not in ["--", "--help", *known]:
            similar = difflib.get_close_matches(argument.replace("-", "_"), [_name(each) for each in known], n=1)
            hint = f" Did you mean --{similar[0].lstrip('_')}?" if similar else ""
            raise ValueError(f"There is no option {argument}.{hint} `{self.prog} --help-all` lists all options.")

    def set_defaults_of(self, config: Mapping[str, Any]) -> None:
        """Take the options of a config file; flags override them.

        Raises:
            ValueError: for an unknown option, or a value of another type.
        """
        options = {option.dest: option for option in self.options if not option.option_strings[0].startswith("--no_")}
        options.pop("help_all", None)
        values = {}
        for name, value in config.items():
            if name not in options:
                similar = difflib.get_close_matches(str(name), options, n=1)
                hint = f" Did you mean {similar[0]}?" if similar else ""
                raise ValueError(
                    f"The config file has an unknown option {str(name)!r}.{hint} `{self.prog} --help-all` lists all "
                    "options."
                )
            is_list = options[name].nargs == "+"
            values[name] = [value] if is_list and value is not None and not isinstance(value, list) else value
            for each in values[name] if is_list and value is not None else [value]:
                self._check_config_value(name, each, is_converted=not is_list)
        self.set_defaults_with_config(**values)

    def _check_config_value(self, name: str, value: Any, is_converted: bool) -> None:
        kind = self.kinds.get(name)
        # argparse converts a text, but not those of a list.
        if kind is None or value is None or (is_converted and isinstance(value, str)):
            return
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
            self.error(f"{name} in the config file must be {_KINDS[kind]}, got {value!r}")


def _name(flag: str) -> str:
    return flag.replace("-", "_")


def _kind(hint: Any) -> type | None:
    """Which of `_KINDS` an option is, or the entries of its list are; None for any other type."""
    types = {each for each in (get_args(hint) or (hint,)) if each is not type(None)}
    if len(types) > 1:
        return None
    (only,) = types
    return _kind(only) if get_args(only) else only if only in _KINDS else None


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
    config, flags = read_arguments(argv, first_option)
    parser = Parser(dataclass_types, prog)
    parser.set_defaults_of(config)
    return parser.parse_args_into_dataclasses(flags, look_for_args_file=False)


def read_arguments(argv: Sequence[str], first_option: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """The options of the YAML file given as `--config`, and the other arguments.

    Args:
        argv: the arguments of a command.
        first_option: the option that receives the values before the first flag.

    Raises:
        ValueError: if `--config` lacks its file or is given twice, or the file is not a YAML mapping.
        FileNotFoundError: if the file does not exist.
    """
    flags = [f"--{first_option}", *argv] if first_option and argv and not argv[0].startswith("-") else list(argv)
    flags = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--config=") else [flag])]
    if "--config" not in flags:
        return {}, flags
    place = flags.index("--config")
    if flags.count("--config") > 1 or place + 1 == len(flags):
        raise ValueError(
            f"--config takes one file, got {shlex.join(argv)}. Give the path of a YAML file, or a config of the "
            "package; `hpt-trl configs` lists them."
        )
    return _read_yaml(config_file(flags[place + 1])), [*flags[:place], *flags[place + 2 :]]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
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
    return content


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
