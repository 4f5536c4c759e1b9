"""Reads the results of `hpt-trl evaluate` that belong to a run, for its model card and its report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpt_trl.data.benchmarks import SUITES
from hpt_trl.model_card.model_card import Metric, Result

RESULTS = "results.json"

_WEIGHTS = ("*.safetensors", "*.bin")


def chosen_evaluations(folder: Path, names: Sequence[str] | None) -> list[Path]:
    """Files of results: the given ones, or those in subfolders of the run folder that are newer than the weights.

    Raises:
        FileNotFoundError: if a given file does not exist.
    """
    if names is None:
        saved_at = max((path.stat().st_mtime for name in _WEIGHTS for path in folder.glob(name)), default=0.0)
        return [path for path in sorted(folder.glob(f"*/{RESULTS}")) if path.stat().st_mtime >= saved_at]
    files = [Path(name) / RESULTS if Path(name).is_dir() else Path(name) for name in names]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"The evaluation {str(file)!r} does not exist. Pass the --output of `hpt-trl evaluate`: a folder that "
                f"contains {RESULTS}, or a .json file."
            )
    return files


def read_results(file: Path, folder: Path, repo_id: str | None) -> list[Result]:
    """Read the results in one file, for the card of the model in `folder`.

    Raises:
        ValueError: if `hpt-trl evaluate` did not write the file, or the results are of another model.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        settings, suites = content["settings"], content["suites"]
        results = [_result(name, suite, settings) for name, suite in suites.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not an output of `hpt-trl evaluate`: {error!r}.") from error
    model = settings["model"]
    if model != repo_id and Path(model).name != folder.absolute().name:
        raise ValueError(f"{str(file)!r} evaluates the model {model!r}, not {str(folder)!r}: leave it out.")
    return results


def _result(name: str, suite: Mapping[str, Any], settings: Mapping[str, Any]) -> Result:
    benchmark = SUITES.get(name)
    metrics = [Metric("accuracy", f"avg@{suite['samples']}", **suite["average"])]
    metrics += [Metric("pass@k", f"pass@{k}", **estimate) for k, estimate in suite["pass_at"].items()]
    problems = f"{len(suite['right'])} problems"
    return Result(
        title=suite["title"],
        # For the user's own data, the name may be a path or a Hub id.
        hub_id=benchmark.hub_id if benchmark else "",
        config=(benchmark.config if benchmark else None) or "",
        split=benchmark.split if benchmark else settings["split"],
        problems=f"first {problems}" if settings["limit"] else problems,
        sampling=(
            f"temperature {suite['temperature']:g}, top-p {suite['top_p']:g}, at most {suite['max_new_tokens']} tokens"
        ),
        metrics=metrics,
    )
