"""Rows that cannot be trained on, whatever is in them: those of a stream are dropped and counted while it is read."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from datasets import IterableDataset

from hpt_trl.common.errors import LocalRunError
from hpt_trl.common.logs import plain_logger

logger = plain_logger(__name__)

_MAX_UNUSABLE = 10_000
"""Rows of a stream, none of them usable, after which its format must be wrong."""


def prompt_fault(prompt: Any) -> str | None:
    """Why a prompt cannot be tokenized, as the predicate of a sentence; None if it is a text or messages.

    Example:
        >>> prompt_fault("1+1"), prompt_fault(5), prompt_fault([{"role": "user"}])
        (None, 'is of type int', 'has a message without content')
    """
    if isinstance(prompt, str):
        return None if _is_encodable(prompt) else "has a lone surrogate"
    if not isinstance(prompt, list):
        return "is missing" if prompt is None else f"is of type {type(prompt).__name__}"
    if not prompt:
        return "has no messages"
    return next((fault for message in prompt if (fault := _message_fault(message))), None)


def _message_fault(message: Any) -> str | None:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return "has a message without a role"
    content = message.get("content")
    if content is None:
        return None if message.get("tool_calls") else "has a message without content"
    if isinstance(content, str):
        return None if _is_encodable(content) else "has a lone surrogate"
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return f"has a message whose content is of type {type(content).__name__}"
    return None if all(_is_encodable(str(part.get("text"))) for part in content) else "has a lone surrogate"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class UsableRows:
    """
    A filter for the rows of a stream: the first usable one decides which columns and which form all must have.

    Args:
        needs_prompt: False where rows may lack the column `prompt`, because an environment writes it.
    """

    def __init__(self, needs_prompt: bool = True) -> None:
        self.needs_prompt = needs_prompt
        self.dropped: Counter[str] = Counter()
        self._columns: set[str] | None = None
        self._form: type | None = None

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether to keep the row.

        Raises:
            LocalRunError: if none of the first 10,000 rows is usable.
        """
        fault = self._fault(row)
        if fault is None:
            if self._columns is None:
                self._columns, self._form = set(row), type(row.get("prompt"))
            return True
        self.dropped[fault] += 1
        if self.dropped[fault] == 1:
            logger.warning(f"A row of the stream was dropped, because {fault}. All such rows are dropped and counted.")
        if self._columns is None and self.dropped.total() >= _MAX_UNUSABLE:
            raise LocalRunError(f"None of the first {_MAX_UNUSABLE:,} rows of the stream can be used: {self}.")
        return False

    def _fault(self, row: Mapping[str, Any]) -> str | None:
        prompt = row.get("prompt")
        fault = "is empty" if prompt == "" else prompt_fault(prompt)
        if fault is not None and (self.needs_prompt or "prompt" in row):
            return f"its prompt {fault}"
        if self._columns is None:
            return None
        if missing := self._columns - set(row):
            return f"it lacks the columns {sorted(missing)} of the first row"
        return None if type(prompt) is self._form else "its prompt is not a text or not messages as in the first row"

    def __str__(self) -> str:
        return "; ".join(f"{count:,} rows because {fault}" for fault, count in self.dropped.items())


def only_usable(dataset: Any, filters: list[UsableRows], needs_prompt: bool = True) -> Any:
    """The data without the unusable rows of its streams.

    Args:
        dataset: a stream, which is filtered, or anything else, which is returned unchanged.
        filters: list to which the filter of a stream is added.
        needs_prompt: as in `UsableRows`.
    """
    if not isinstance(dataset, IterableDataset):
        return dataset
    filters.append(UsableRows(needs_prompt))
    return dataset.filter(filters[-1])
