"""What the trainers reject of the data before a run starts, instead of failing after the first generation."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from trl.trainer.utils import get_callable_name

from hpt_trl.durability.reward_guard import check_reward_arguments
from hpt_trl.trainer.demonstration_forms import candidates_of, form_fault, is_missing

_GIVEN = {"prompts", "completions", "completion_ids", "environments", "trainer_state", "log_extra", "log_metric"}
"""What TRL passes to reward functions besides the columns."""

_AROUND_A_MESSAGE = 32


def check_demonstrations(dataset: Dataset | IterableDataset, columns: list[str]) -> None:
    """Reject data without a demonstration of a form that can be trained on."""
    has_none = "demonstration" not in columns
    if has_none or (isinstance(dataset, Dataset) and all(map(is_missing, dataset["demonstration"]))):
        raise ValueError(
            f"No row of the training data has a demonstration (columns: {columns}): the gate could never choose one. "
            "Add a 'demonstration' column (`hpt-trl prepare` makes one), or set gate='off' for plain GRPO."
        )
    if not isinstance(dataset, Dataset):
        return
    first_fault, count = None, 0
    prompts = dataset["prompt"] if "prompt" in columns else [[]] * len(dataset)
    for prompt, demonstration in zip(prompts, dataset["demonstration"]):
        if is_missing(demonstration):
            continue
        # Which of several candidates is right is known when it is needed.
        fault = None if candidates_of(demonstration) else form_fault(prompt, demonstration)
        if fault is None:
            return
        first_fault, count = first_fault or fault, count + 1
    raise ValueError(
        f"All {count} demonstrations of the training data are malformed, so the gate could never choose one. "
        f"The first: {first_fault} `hpt-trl prepare` converts data of other forms."
    )


def longest_prompt(dataset: Dataset) -> int | None:
    """Bytes of the longest prompt, from Arrow's columns instead of row by row; None where they do not tell.

    Rows that the data set leaves out of its table are counted in. A message has 32 bytes for what a template puts
    around it.

    Args:
        dataset: with a column `prompt`.
    """
    column = dataset.data.column("prompt")
    if column.null_count or not len(column):
        return None
    # Arrow's strings are valid UTF-8: one that is there can be tokenized.
    if _is_text(column.type):
        return pc.max(pc.binary_length(column)).as_py()
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return None
    longest = [_longest_conversation(chunk) for chunk in column.chunks if len(chunk)]
    known = [size for size in longest if size is not None]
    return max(known) if len(known) == len(longest) else None


def _longest_conversation(chunk: pa.Array) -> int | None:
    messages = chunk.flatten()
    if {field.name for field in messages.type} != {"role", "content"} or messages.null_count:
        return None
    parts = [messages.field("role"), messages.field("content")]
    is_complete = all(_is_text(part.type) and not part.null_count for part in parts)
    if not is_complete or not pc.min(pc.list_value_length(chunk)).as_py():
        return None
    sizes = sum(pc.binary_length(part).to_numpy() for part in parts) + _AROUND_A_MESSAGE
    return int(np.bincount(pc.list_parent_indices(chunk), weights=sizes).max())


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def check_rewards(reward_funcs: Any, training: Any, evaluation: Any, has_environments: bool) -> None:
    """Reject reward functions that cannot be called with the columns of the data, before a model is loaded.

    Args:
        reward_funcs: one or several of functions, models and names of models, as TRL takes them.
        training: training data.
        evaluation: evaluation data, or several by name.
        has_environments: whether TRL passes environments too.
    """
    given = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
    functions = [each for each in given if callable(each)]
    names = [get_callable_name(each) for each in functions]
    check_reward_arguments(training, functions, names, has_environments)
    check_evaluation_columns(functions, evaluation)


def check_evaluation_columns(reward_funcs: Sequence[Any], evaluation: Any) -> None:
    """Reject evaluation data that lack a column that a reward function needs.

    Args:
        reward_funcs: functions or models.
        evaluation: evaluation data, or several by name.
    """
    for name, dataset in (evaluation if isinstance(evaluation, Mapping) else {"": evaluation}).items():
        columns = getattr(dataset, "column_names", None)
        for function in reward_funcs if columns else ():
            missing = sorted(_needed_columns(function) - set(columns or ()) - _GIVEN)
            if missing:
                title = f"evaluation data {name!r}" if name else "evaluation data"
                raise ValueError(
                    f"The reward function {function.__name__!r} needs the columns {missing}, which the {title} lacks: "
                    f"it has {columns}. Add them, or give the parameters a default."
                )


def _needed_columns(function: Callable[..., Any]) -> set[str]:
    """Parameters of a reward function without a default."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        return set()
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.default is each.empty and each.kind in keywords}
