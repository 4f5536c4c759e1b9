"""The benchmarks' problems, to decontaminate against: from files, or from the Hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpt_trl.data.benchmarks import SUITES, load_suite
from hpt_trl.data.readers import SPLITS, is_data, read_file

_PROBLEM_COLUMNS = ("problem", "question", "prompt")
_OPTIONS = re.compile(r"\n\s*\(?A[).]\s")

# Its authors ask that it not be spread in plain text, so the Hub gives it only to those who agreed to that.
_GATED = {"gpqa"}


@dataclass
class Benchmarks:
    """Problems by benchmark, and the known benchmarks that are not among them, with the reason."""

    problems: dict[str, list[str]]
    missing: dict[str, str] = field(default_factory=dict)


def benchmark_problems(paths: Sequence[str] | None) -> Benchmarks:
    """The problems to decontaminate against.

    Args:
        paths: files, or folders of files, with one problem a row (`problem` or `question`). Each file is a benchmark
            named like it, or like its folder if it is named for a split.
            None: every suite of `hpt-trl evaluate`, from the Hub.

    Raises:
        FileNotFoundError: for a path that is not there.
        ValueError: if a file holds no problems, or a benchmark cannot be loaded from the Hub.
    """
    if not paths:
        return _from_hub()
    problems: dict[str, list[str]] = {}
    for file in (file for path in paths for file in _files(path)):
        problems.setdefault(_name(file), []).extend(_problems_of(file))
    missing = {name: "no file of that name among --benchmarks" for name in SUITES if name not in problems}
    return Benchmarks(problems, missing)


def _from_hub() -> Benchmarks:
    benchmarks = Benchmarks({})
    for name in SUITES:
        try:
            benchmarks.problems[name] = [_without_options(row["problem"]) for row in load_suite(name, None)]
        except (OSError, ValueError) as error:
            if name in _GATED:
                benchmarks.missing[name] = f"gated on the Hub, not available here ({type(error).__name__})"
                continue
            raise ValueError(
                f"The benchmark {name!r}, to decontaminate against, could not be loaded: {error} Give a folder with "
                "the benchmarks as .jsonl files by --benchmarks FOLDER, or take the risk with --decontaminate false."
            ) from error
    return benchmarks


def _files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    inside = [*sorted(place.glob("*")), *sorted(place.glob("*/test.*"))]
    files = [place] if place.is_file() else [file for file in inside if is_data(file)]
    if not files:
        raise FileNotFoundError(f"There is no benchmark at {path!r}. Give .jsonl files, or a folder that has some.")
    return files


def _name(file: Path) -> str:
    return file.absolute().parent.name if file.stem in SPLITS else file.stem


def _without_options(problem: str) -> str:
    """The question of a multiple-choice problem: its options may be left out of what repeats it."""
    return _OPTIONS.split(problem, maxsplit=1)[0].strip() or problem


def _problems_of(file: Path) -> list[str]:
    problems = []
    for row in read_file(file):
        problem = next((row[column] for column in _PROBLEM_COLUMNS if isinstance(row.get(column), str)), None)
        if problem is None:
            raise ValueError(
                f"The benchmark {str(file)!r} needs a 'problem' or 'question' text in every row, got a row with "
                f"{sorted(row)}."
            )
        problems.append(_without_options(problem))
    if not problems:
        raise ValueError(f"The benchmark {str(file)!r} holds no problems.")
    return problems
