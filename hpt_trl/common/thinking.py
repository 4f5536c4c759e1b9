"""Thinking that a prompt opens, and a demonstration continues, closes or leaves out."""

from collections.abc import Mapping
from typing import Any

from hpt_trl.common.formats import END_OF_THINK, THINK

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""The names under which chat templates read a message's thinking."""

OPENS_THINKING = "opens_thinking"
"""Name of the column that tells a reward function whether the prompt of each completion ends with `<think>`."""

TAIL_TOKENS = 16
"""Of a prompt: enough to know what it opens."""

_NO_THOUGHTS = f"\n{END_OF_THINK}\n\n"


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt ends with `<think>`: what the policy writes begins as a thought."""
    return prompt.rstrip().endswith(THINK)


def opened_part(prompt: str) -> str:
    """The `<think>` at the end of a prompt with the white space after it; "" if there is none."""
    return THINK + _gap(prompt) if opens_thinking(prompt) else ""


def message_in_context(message: Mapping[str, Any], prompt: str, reads_reasoning: bool) -> dict[str, Any]:
    """A message of the assistant that agrees with what its prompt has opened.

    Where the prompt opens `<think>`, thinking in the message is in the form that the template reads. Where the prompt
    opens and closes it, thinking is left out.

    Args:
        message: a message, its content a string.
        prompt: the end of the prompt.
        reads_reasoning: whether the template reads a field with the thinking.
    """
    content = message.get("content") or ""
    others = {key: value for key, value in message.items() if key not in REASONING_FIELDS}
    thoughts, answer = _split(message)
    if opens_thinking(prompt) and thoughts is not None:
        if reads_reasoning:
            has_field = len(others) < len(message)
            inline = {"content": answer.lstrip("\n"), "reasoning_content": thoughts.strip("\n")}
            return dict(message) if has_field else {**others, **inline}
        return {
            **others,
            "content": f"{THINK}{_gap(prompt)}{thoughts.removeprefix(_gap(prompt))}{END_OF_THINK}{answer}",
        }
    if prompt.rstrip().endswith(END_OF_THINK):
        is_thought = content.lstrip().startswith(THINK) and thoughts is not None
        return {**others, "content": answer.removeprefix(_gap(prompt)) if is_thought else content}
    return dict(message)


def thoughts_after(message: Mapping[str, Any], prompt: str) -> str:
    """The thinking of a message after a prompt that opens it, with its end."""
    thoughts, _ = _split(message)
    return _NO_THOUGHTS if thoughts is None else f"{thoughts.removeprefix(_gap(prompt))}{END_OF_THINK}\n\n"


def after_opened(prompt: str, text: str) -> str:
    """A continuation of a prompt without the `<think>` that the prompt has; one without thinking closes it."""
    if not opens_thinking(prompt):
        return text
    if text.lstrip().startswith(THINK):
        return text.lstrip().removeprefix(THINK).removeprefix(_gap(prompt))
    return text if END_OF_THINK in text else _NO_THOUGHTS + text


def _gap(prompt: str) -> str:
    """The white space at the end of a prompt."""
    return prompt[len(prompt.rstrip()) :]


def _split(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """The thinking of a message, None without any, and its answer."""
    content = message.get("content") or ""
    reasoning = next((message[key] for key in REASONING_FIELDS if isinstance(message.get(key), str)), None)
    if reasoning is not None:
        return f"{reasoning.rstrip()}\n", f"\n\n{content}"
    if END_OF_THINK not in content:
        return None, content
    thoughts, _, answer = content.partition(END_OF_THINK)
    return thoughts.lstrip().removeprefix(THINK), answer
