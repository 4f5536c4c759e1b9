"""Loads the benchmark problems to decontaminate against, from files or from the Hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.data.benchmarks import SUITES, load_suite
from hpt_trl.data.readers import SPLITS, is_data, read_file

_PROBLEM_COLUMNS = ("problem", "question", "prompt")
_OPTIONS = re.compile(r"\n\s*\(?A[).]\s")

# The authors ask not to publish it in plain text, so the Hub requires users to agree to that.
_GATED = {"gpqa"}


@dataclass
class Benchmarks:
    """Problems by benchmark, and the reason for each known benchmark that is missing."""

    problems: dict[str, list[str]]
    missing: dict[str, str] = field(default_factory=dict)


def benchmark_problems(paths: Sequence[str] | None) -> Benchmarks:
    """The problems to decontaminate against.

    Args:
        paths: files, or folders of files, with one problem per row (`problem` or `question`). Each file is one
            benchmark, named after the file, or after its folder if the file is named after a split. None loads every
            suite of `hpt-trl evaluate` from the Hub.

    Raises:
        FileNotFoundError: if a path has no benchmark.
        ValueError: if a file has no problems, or a benchmark cannot be loaded from the Hub.
    """
    if not paths:
        return _from_hub()
    problems: dict[str, list[str]] = {}
    for file in (file for path in paths for file in _files(path)):
        problems.setdefault(_name(file), []).extend(_problems_of(file))
    missing = {name: "no file with this name in --benchmarks" for name in SUITES if name not in problems}
    return Benchmarks(problems, missing)


def _from_hub() -> Benchmarks:
    benchmarks = Benchmarks({})
    for name in SUITES:
        try:
            benchmarks.problems[name] = [_without_options(row["problem"]) for row in load_suite(name, None)]
        except (OSError, ValueError) as error:
            if name in _GATED:
                benchmarks.missing[name] = f"gated on the Hub, and you have no access ({type(error).__name__})"
                continue
            raise ValueError(
                f"The benchmark {name!r} could not be loaded for decontamination: {error} Pass a folder with the "
                "benchmarks as .jsonl files as --benchmarks FOLDER, or skip the check with --decontaminate false."
            ) from error
    return benchmarks


def _files(path: str) -> list[Path]:
    location = Path(path).expanduser()
    candidates = [*sorted(location.glob("*")), *sorted(location.glob("*/test.*"))]
    files = [location] if location.is_file() else [file for file in candidates if is_data(file)]
    if not files:
        raise FileNotFoundError(f"There is no benchmark at {path!r}. Give .jsonl files, or a folder with such files.")
    return files


def _name(file: Path) -> str:
    return file.absolute().parent.name if file.stem in SPLITS else file.stem


def _without_options(problem: str) -> str:
    """The question of a multiple-choice problem, because a copy of it may omit the options."""
    return _OPTIONS.split(problem, maxsplit=1)[0].strip() or problem


def _problems_of(file: Path) -> list[str]:
    problems = []
    for row in read_file(file):
        problem = next((row[column] for column in _PROBLEM_COLUMNS if isinstance(row.get(column), str)), None)
        if problem is None:
            raise ValueError(
                f"The benchmark {str(file)!r} needs a text 'problem' or 'question' in every row, got a row with the "
                f"columns {sorted(row)}."
            )
        problems.append(_without_options(problem))
    if not problems:
        raise ValueError(f"The benchmark {str(file)!r} has no problems. Remove the file, or add rows.")
    return problems
