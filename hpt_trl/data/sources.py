"""Resolves the names in a config to a model that can be loaded and rows that can be trained on."""

from functools import partial
from pathlib import Path
from typing import Any

from hpt_trl.data.columns import Converter, converter, is_ready
from hpt_trl.data.prompts import PromptStyle
from hpt_trl.data.readers import load_rows
from hpt_trl.data.refusal_report import RefusedError
from hpt_trl.miniature import MODEL_PATH

MINIATURE = "miniature"
"""Name of the bundled model and of its tasks, which need no download."""
CHAINS, DIGIT_SUMS, SUMS = "chains", "digit_sums", "sums"
BUNDLED_TASKS = {
    CHAINS: "the addition and subtraction problems bundled with hpt_trl",
    DIGIT_SUMS: "the digit sums bundled with hpt_trl",
    SUMS: "the sums of hpt_trl's README",
}
"""What the miniature's tasks are; the first one is the default. `dataset_config` chooses one."""


def resolve_model(name: str | None) -> str:
    """Path or Hub id of a model.

    Raises:
        ValueError: if the name is empty.
        FileNotFoundError: if the name looks like a path but is not the folder of a model.
    """
    if not name:
        raise ValueError("No model was given. Set model_name_or_path to a folder, a Hub id, or 'miniature'.")
    if name == MINIATURE:
        return MODEL_PATH
    is_path = Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not (Path(name) / "config.json").exists() and not (Path(name) / "adapter_config.json").exists():
        raise FileNotFoundError(
            f"The model {name!r} is not a folder with a config.json. Give the folder of a saved model, a Hub id like "
            "'Qwen/Qwen2.5-Math-1.5B', or 'miniature'; `hpt-trl prepare` turns a GGUF file into such a folder."
        )
    return name


def resolve_rows(name: str | None, split: str, config: str | None = None, streaming: bool = False) -> Any:
    """Rows with at least `prompt` and `solution`, from a file, a folder, a Hub id or "miniature".

    A known dataset is converted, but without the checks of `hpt-trl prepare`: the first candidate demonstration is used
    unverified, and nothing is compared with the benchmarks.

    Raises:
        ValueError: if the name is empty, the columns are not those of a known dataset, or a row cannot be used.
        FileNotFoundError: if the name looks like a path and does not exist.
    """
    if not name:
        raise ValueError("No data was given. Set dataset_name to a file, a folder, a Hub id, or 'miniature'.")
    if name == MINIATURE:
        return _bundled_rows(split, config or CHAINS)
    rows = load_rows(name, split, config, streaming)
    columns = rows.column_names
    if not columns or is_ready(columns):
        return rows
    return rows.map(partial(_as_row, converter(columns)), remove_columns=columns)


def _bundled_rows(split: str, task: str) -> Any:
    from hpt_trl.miniature import digit_sums, tasks

    if split != "train" and split != "test":
        raise ValueError(f"The miniature has the splits 'train' and 'test', got {split!r}.")
    if task not in BUNDLED_TASKS:
        raise ValueError(f"The miniature has the tasks {list(BUNDLED_TASKS)}, got dataset_config={task!r}.")
    if task == SUMS:
        return _sums()[split]
    if task == DIGIT_SUMS:
        return digit_sums.dataset("train" if split == "train" else "test")
    return tasks.dataset(4096, 0, "train") if split == "train" else tasks.dataset(500, 1, "test")


def _sums() -> Any:
    """The README's example, by split: a number from 10 to 39 plus a digit, 48 of the 270 held out."""
    from datasets import Dataset

    sums = [(a, b, a + b) for a in range(10, 40) for b in range(1, 10)]
    rows = [
        {"prompt": f"{a}+{b}=?\n", "demonstration": f"{a}+{b}={c}\n\\boxed{{{c}}}", "solution": str(c)}
        for a, b, c in sums
    ]
    return Dataset.from_list(rows).train_test_split(48, seed=0)


def _as_row(convert: Converter, row: dict[str, Any]) -> dict[str, Any]:
    try:
        example = convert(row)
    except RefusedError as error:
        raise ValueError(
            f"A row cannot be used ({error}). Run `hpt-trl prepare`, which skips and reports such rows."
        ) from None
    return {
        "prompt": PromptStyle().apply(example.prompt, example.is_question),
        "demonstration": example.demonstrations[0] if example.demonstrations else "",
        "solution": example.solution,
    }
