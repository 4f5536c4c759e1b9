"""Paths and names of a command line that can be checked without PyTorch, whose import takes seconds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpt_trl.common.command_line import read_arguments
from hpt_trl.data.readers import local_files
from hpt_trl.data.row_writer import RowWriter
from hpt_trl.data.sources import MINIATURE, resolve_model

Options = Mapping[str, Any]


def check_paths(command: str, argv: Sequence[str]) -> None:
    """Reject files and folders that do not exist; the command itself checks everything else.

    Args:
        command: the command of `hpt-trl`.
        argv: its arguments.

    Raises:
        FileNotFoundError: if something that looks like a path does not exist.
        ValueError: if the config file cannot be read, or a data file is empty or of an unknown format.
    """
    if command not in _CHECKS or {"-h", "--help", "--help-all"} & set(argv):
        return
    first_option, check = _CHECKS[command]
    config, flags = read_arguments(argv, first_option)
    check(config | _values(flags))


def _values(flags: Sequence[str]) -> dict[str, str]:
    """Options with one value; the parser sees the others."""
    values = {}
    for flag, value in zip(flags, [*flags[1:], "--"]):
        name, is_assigned, assigned = flag.partition("=")
        if flag.startswith("--") and (is_assigned or not value.startswith("--")):
            values[name.removeprefix("--").replace("-", "_")] = assigned if is_assigned else value
    return values


def _check_model(name: Any) -> None:
    if isinstance(name, str) and name:
        resolve_model(name)


def _check_data(name: Any, split: Any) -> None:
    if isinstance(name, str) and name not in ("", MINIATURE):
        local_files(name, str(split))


def _check_train(options: Options) -> None:
    _check_model(options.get("model_name_or_path"))
    _check_data(options.get("dataset_name"), options.get("dataset_train_split", "train"))


def _check_evaluate(options: Options) -> None:
    _check_model(options.get("model"))
    _check_data(options.get("data"), options.get("split", "test"))


def _check_prepare(options: Options) -> None:
    if not str(options.get("source")).endswith(".gguf"):
        if isinstance(options.get("output"), str):
            RowWriter(Path(options["output"]))
        _check_data(options.get("source"), options.get("split", "train"))


def _check_demonstrate(options: Options) -> None:
    if not options.get("endpoint"):  # which has a name of its own for its model
        _check_model(options.get("model"))
    _check_data(options.get("source"), options.get("split", "train"))


def _check_report(options: Options) -> None:
    folder = options.get("run_dirs")
    if isinstance(folder, str) and not Path(folder).is_dir():
        raise FileNotFoundError(f"The folder {folder!r} does not exist. Pass the output_dir of a run.")


_CHECKS: dict[str, tuple[str | None, Callable[[Options], None]]] = {
    "train": (None, _check_train),
    "evaluate": (None, _check_evaluate),
    "prepare": ("source", _check_prepare),
    "demonstrate": ("source", _check_demonstrate),
    "report": ("run_dirs", _check_report),
}
