"""The forms that a demonstration can have in the data, and the messages that they say."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpt_trl.data.prompts import SHAREGPT_ROLES
from hpt_trl.verifier.grader import Verdict
from hpt_trl.verifier.verdicts import judge

Message = Mapping[str, Any]
Demonstration = str | Message | Sequence[Message] | Sequence[str] | None


def is_missing(demonstration: Any) -> bool:
    """Whether there is nothing to train on: None, NaN, an empty or blank text, an empty list, an empty message."""
    if isinstance(demonstration, Mapping):
        return not any(value for key, value in demonstration.items() if key not in ("role", "from", "type"))
    if isinstance(demonstration, str):
        return not demonstration.strip()
    if isinstance(demonstration, float):
        return math.isnan(demonstration)
    if demonstration is None or not isinstance(demonstration, (list, tuple)):
        return demonstration is None  # anything else, such as a number, is there and will be refused
    return all(is_missing(message) for message in demonstration)


def messages_of(prompt: Any, demonstration: Any) -> list[dict[str, Any]]:
    """A demonstration of any form as messages of text that continue a prompt.

    Args:
        prompt: a text or messages.
        demonstration: a text, a message, content parts of one, or messages; also of ShareGPT, or with a `text`.

    Raises:
        ValueError: if it is of another type, contains anything but text, does not end with the assistant's message,
            or is more than a text although the prompt is one.
    """
    messages = _messages(demonstration)
    is_text = len(messages) == 1 and not messages[0].keys() - {"role", "content"}
    if messages[-1]["role"] != "assistant" or (isinstance(prompt, str) and not is_text):
        raise ValueError(
            "A demonstration given as messages needs a conversational prompt and must end with the assistant's "
            f"message; got a prompt of type {type(prompt).__name__} and roles {[m['role'] for m in messages]}."
        )
    return messages


def form_fault(prompt: Any, demonstration: Any) -> str | None:
    """What is wrong with the form of a demonstration; None if nothing is."""
    try:
        messages_of(prompt, demonstration)
    except ValueError as error:
        return str(error)
    return None


def candidates_of(demonstration: Any) -> list[str]:
    """The texts of a list of candidates, without missing ones; [] if the demonstration has another form."""
    given = [part for part in demonstration if not is_missing(part)] if isinstance(demonstration, (list, tuple)) else []
    return given if all(isinstance(part, str) for part in given) else []


def chosen_candidate(demonstration: Any, solution: Any) -> Any:
    """Of a list of texts, the first whose answer is the solution, or without a solution the first; else unchanged.

    Raises:
        ValueError: if no text has the right answer.
    """
    given = candidates_of(demonstration)
    if not given:
        return demonstration
    if solution is None:
        return given[0]
    verdicts = judge(given, [solution] * len(given))
    if Verdict.RIGHT not in verdicts:
        raise ValueError(
            f"The verifier accepts none of the {len(given)} candidate texts. `hpt-trl prepare --verifier` chooses "
            "among them by a verifier of yours."
        )
    return given[verdicts.index(Verdict.RIGHT)]


def _messages(demonstration: Any) -> list[dict[str, Any]]:
    if isinstance(demonstration, str):
        return [{"role": "assistant", "content": demonstration}]
    if isinstance(demonstration, Mapping):
        return [plain_message(demonstration)]
    if not isinstance(demonstration, (list, tuple)) or not demonstration:
        raise ValueError(f"A demonstration must be a text or messages, got {type(demonstration).__name__}.")
    if all(
        isinstance(part, Mapping) and "type" in part and not {"role", "from"} & part.keys() for part in demonstration
    ):
        return [{"role": "assistant", "content": _joined_parts(demonstration)}]
    return [plain_message(message) for message in demonstration]


def plain_message(message: Any) -> dict[str, Any]:
    """A message without the keys that `datasets` filled with None, its content as one string, its arguments parsed.

    Raises:
        ValueError: if it is no message, or has anything but text.
    """
    if not isinstance(message, Mapping):
        raise ValueError(f"A demonstration's message must have a role and a content, got {type(message).__name__}.")
    kept = {key: value for key, value in message.items() if value is not None}
    if "role" not in kept and isinstance(kept.get("from"), str):
        role, content = kept.pop("from"), kept.pop("value", "")
        kept |= {"role": SHAREGPT_ROLES.get(role, role), "content": content}
    elif "role" not in kept and isinstance(kept.get("text"), str):
        kept = {"role": "assistant", "content": kept["text"]}
    if isinstance(kept.get("content"), (list, tuple)):
        kept["content"] = _joined_parts(kept["content"])
    if not isinstance(kept.get("role"), str) or not isinstance(kept.get("content", ""), str):
        content = type(kept.get("content")).__name__
        raise ValueError(
            f"A demonstration's message must have a role and a text, got role {kept.get('role')!r} and content of type "
            f"{content}."
        )
    if calls := kept.get("tool_calls"):
        if not isinstance(calls, (list, tuple)):
            raise ValueError(f"A demonstration's tool calls must be a list, got {type(calls).__name__}.")
        kept["tool_calls"] = [_parsed_call(call) for call in calls]
    return kept


def _parsed_call(call: Any) -> Any:
    """A tool call whose arguments are a mapping, as templates expect them: OpenAI's API writes them as JSON."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    is_mapping = isinstance(arguments, Mapping)
    return {**call, "function": {**function, "arguments": arguments}} if is_mapping else call


def _joined_parts(parts: Sequence[Any]) -> str:
    others = sorted({_type_of(part) for part in parts if not _is_text(part)})
    if others:
        raise ValueError(f"A demonstration must contain only text, got a message with parts of type {others}.")
    return "".join(part["text"] for part in parts)


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _type_of(part: Any) -> str:
    if not isinstance(part, Mapping):
        return type(part).__name__
    kind = part.get("type")
    return f"text of type {type(part.get('text')).__name__}" if kind == "text" else str(kind)
