"""A demonstration as text or messages -> the token ids that continue the prompt the policy saw."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Demonstration = str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None

THINK = "<think>"


class Tokens(NamedTuple):
    """Token ids of one demonstration, and 1 for those that are trained on. Both of length T."""

    ids: list[int]
    mask: list[int]
    was_cut: bool = False


def is_missing(demonstration: Demonstration) -> bool:
    """Whether there is nothing to learn from: None, an empty or blank text, an empty list, an empty message."""
    if isinstance(demonstration, Mapping):
        return not any(value for key, value in demonstration.items() if key != "role")
    if isinstance(demonstration, str):
        return not demonstration.strip()
    return not demonstration or all(is_missing(message) for message in demonstration)


def prompt_identifier(example: Mapping[str, Any]) -> str:
    """The example's `prompt_id` if its data set has that column, else a checksum of its prompt."""
    if example.get("prompt_id") is not None:
        return str(example["prompt_id"])
    prompt = json.dumps(example.get("prompt"), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def tokenize_demonstration(
    tokenizer: Any,
    prompt: str | Sequence[Mapping[str, Any]],
    demonstration: Demonstration,
    prompt_ids: Sequence[int],
    template_kwargs: Any = None,
) -> Tokens:
    """Token ids that the policy would have had to generate after `prompt_ids`, ending in EOS.

    Args:
        tokenizer: the policy's tokenizer.
        prompt: text or messages of the prompt.
        demonstration: a text, one assistant message, or a list of messages that ends with the assistant's. In a list
            of several, what the assistant did not write is context and is not trained on.
        prompt_ids: the very ids the rollouts started from. A `<think>` that they open is not repeated.
        template_kwargs: a mapping passed to the chat template: TRL's `chat_template_kwargs`.

    Raises:
        ValueError: if the messages do not end with the assistant's, or the chat template rewrites earlier turns.
    """
    text = _plain_text(demonstration)
    if text is None:
        return _tokenize_messages(tokenizer, prompt, demonstration, template_kwargs or {})  # type: ignore[arg-type]
    text = _without_opened_think(tokenizer.decode(prompt_ids[-16:]), text)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Tokens(ids, [1] * len(ids))


def cut(tokens: Tokens, max_length: int) -> Tokens:
    """The first `max_length` tokens: a demonstration cut short has no EOS, for the policy is not to stop there."""
    if len(tokens.ids) <= max_length:
        return tokens
    return Tokens(tokens.ids[:max_length], tokens.mask[:max_length], was_cut=True)


def _plain_text(demonstration: Demonstration) -> str | None:
    """The text of a demonstration that is one plain assistant turn, or None if it takes the chat template."""
    if isinstance(demonstration, str):
        return demonstration
    messages = [demonstration] if isinstance(demonstration, Mapping) else list(demonstration or [])
    # datasets fills keys that only some messages have with None.
    fields = {key for message in messages for key, value in message.items() if value is not None}
    if len(messages) == 1 and fields == {"role", "content"} and messages[0]["role"] == "assistant":
        return messages[0]["content"] if isinstance(messages[0]["content"], str) else None
    return None


def _without_opened_think(prompt_tail: str, text: str) -> str:
    """Drop a leading `<think>` that the generation prompt has already written."""
    opened = prompt_tail.rstrip()
    if not opened.endswith(THINK) or not text.lstrip().startswith(THINK):
        return text
    rest = text.lstrip()[len(THINK) :]
    written = prompt_tail[len(opened) :]
    return rest.removeprefix(written)


def _tokenize_messages(
    tokenizer: Any,
    prompt: str | Sequence[Mapping[str, Any]],
    demonstration: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    template_kwargs: Mapping[str, Any],
) -> Tokens:
    """Token ids of a conversation that continues the prompt; only the assistant's turns are trained on."""
    messages = [demonstration] if isinstance(demonstration, Mapping) else list(demonstration)
    if isinstance(prompt, str) or messages[-1].get("role") != "assistant":
        raise ValueError(
            "A demonstration given as messages needs a conversational prompt and must end with the assistant's "
            f"message; got a prompt of type {type(prompt).__name__} and roles {[m.get('role') for m in messages]}."
        )

    def render(turns: list[Mapping[str, Any]], open_turn: bool) -> str:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_turn, **template_kwargs)

    ids: list[int] = []
    mask: list[int] = []
    turns = list(prompt)
    written = render(turns, True)
    for message in messages:
        is_trained = message["role"] == "assistant"
        opened = render(turns, True) if is_trained else written
        turns.append({key: value for key, value in message.items() if value is not None})
        closed = render(turns, False)
        context, new = _continuation(written, opened), _continuation(opened, closed)
        written = closed
        for text, trained in ((context, False), (new, is_trained)):
            part = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += part
            mask += _trained_up_to_eos(part, tokenizer.eos_token_id) if trained else [0] * len(part)
    end = len(mask) - mask[::-1].index(1)
    if ids[end - 1] != tokenizer.eos_token_id:
        return Tokens([*ids[:end], tokenizer.eos_token_id], [*mask[:end], 1])
    return Tokens(ids[:end], mask[:end])


def _continuation(before: str, after: str) -> str:
    """What `after` adds to `before`."""
    if not after.startswith(before):
        raise ValueError(
            "The chat template rewrites earlier turns when the demonstration's messages are added, so the policy's own "
            f"prompt is not their beginning: {before[-60:]!r} became {after[: len(before)][-60:]!r}. Give the "
            "demonstration as one text instead."
        )
    return after[len(before) :]


def _trained_up_to_eos(ids: list[int], eos_token_id: int) -> list[int]:
    """1 up to the turn's EOS, 0 on what the template writes after it: the policy never generates that."""
    end = len(ids) - ids[::-1].index(eos_token_id) if eos_token_id in ids else len(ids)
    return [1] * end + [0] * (len(ids) - end)
