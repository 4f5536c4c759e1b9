"""From a demonstration as text or messages to the token ids that continue the prompt of the policy."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from jinja2 import TemplateError

from hpt_trl.common.formats import END_OF_THINK, THINK

Message = Mapping[str, Any]
Demonstration = str | Message | Sequence[Message] | None


class DemonstrationTokens(NamedTuple):
    """T token ids of one demonstration, and a mask that is 1 on those that are trained on."""

    ids: list[int]
    mask: list[int]
    was_cut: bool = False


def is_missing(demonstration: Demonstration) -> bool:
    """Whether there is nothing to train on: None, an empty or blank text, an empty list, an empty message."""
    if isinstance(demonstration, Mapping):
        return not any(value for key, value in demonstration.items() if key != "role")
    if isinstance(demonstration, str):
        return not demonstration.strip()
    if demonstration is None or not isinstance(demonstration, (list, tuple)):
        return demonstration is None  # anything else, such as a number, is there and will be refused
    return all(is_missing(message) for message in demonstration)


def prompt_identifier(example: Mapping[str, Any]) -> str:
    """The example's `prompt_id` if it has one, else a checksum of its prompt or, without a prompt, of all columns."""
    if example.get("prompt_id") is not None:
        return str(example["prompt_id"])
    content = example.get("prompt", dict(example))
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def truncated(tokens: DemonstrationTokens, max_length: int) -> DemonstrationTokens:
    """The first `max_length` tokens, without EOS if any were removed: the policy must not learn to stop there."""
    if len(tokens.ids) <= max_length:
        return tokens
    return DemonstrationTokens(tokens.ids[:max_length], tokens.mask[:max_length], was_cut=True)


class DemonstrationTokenizer:
    """
    Tokenizes demonstrations as the policy would have to generate them.

    Args:
        tokenizer: the policy's tokenizer; it must have an EOS token.
        stop_ids: token ids at which generation stops.
        template_options: arguments of `apply_chat_template`, the same as for the prompts.
    """

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], template_options: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)
        self.template_options = dict(template_options)

    def __call__(
        self, prompt: str | Sequence[Message], demonstration: Demonstration, prompt_ids: Sequence[int]
    ) -> DemonstrationTokens:
        """Token ids that continue `prompt_ids` and end where generation would stop.

        Args:
            prompt: text or messages of the prompt.
            demonstration: a text, one assistant message, or a list of messages that ends with the assistant's. Messages
                of other roles are context and are not trained on.
            prompt_ids: the ids that the rollouts started from. A `<think>` that they open is not repeated; thinking
                that they open and close is left out.

        Raises:
            ValueError: if the messages do not end with the assistant's, contain anything but text, or cannot be
                rendered by the chat template.
        """
        text = _plain_text(demonstration)
        if text is None:
            return self._messages(prompt, demonstration)  # type: ignore[arg-type]
        text = _after_opened_think(self.tokenizer.decode(prompt_ids[-16:]), text)
        ids = [*self._ids(text), self.tokenizer.eos_token_id if isinstance(prompt, str) else self._turn_end_id]
        return DemonstrationTokens(ids, [1] * len(ids))

    @cached_property
    def _turn_end_id(self) -> int:
        """The stop token that the chat template writes after an answer, or EOS if it writes none."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        written = reversed(self._ids(self._render(turns, open_turn=False)))
        return next((token for token in written if token in self.stop_ids), self.tokenizer.eos_token_id)

    def _messages(self, prompt: str | Sequence[Message], demonstration: Message | Sequence[Message]):
        """Token ids of messages that continue the prompt; only the assistant's turns are trained on."""
        messages = [demonstration] if isinstance(demonstration, Mapping) else list(demonstration)
        if isinstance(prompt, str) or messages[-1].get("role") != "assistant":
            raise ValueError(
                "A demonstration given as messages needs a conversational prompt and must end with the assistant's "
                f"message; got a prompt of type {type(prompt).__name__} and roles {[m.get('role') for m in messages]}."
            )
        ids: list[int] = []
        mask: list[int] = []
        turns = list(prompt)
        written = self._render(turns, open_turn=True)
        for message in messages:
            is_trained = message["role"] == "assistant"
            opened = self._render(turns, open_turn=True) if is_trained else written
            turns.append(_text_message(message))
            closed = self._render(turns, open_turn=False)
            context = self._ids(_continuation(written, opened))
            turn = self._ids(_continuation(opened, closed))
            end = self._turn_length(turn) if is_trained else 0
            ids += context + turn
            mask += [0] * len(context) + [1] * end + [0] * (len(turn) - end)
            written = closed
        # The last turn ends with the token at which generation stops, whatever the template writes there.
        end = len(mask) - mask[::-1].index(1)
        if ids[end - 1] in self.tokenizer.all_special_ids:
            end -= 1
        return DemonstrationTokens([*ids[:end], self._turn_end_id], [*mask[:end], 1])

    def _turn_length(self, turn: list[int]) -> int:
        """Number of tokens up to the special one that ends a turn: the template's text after it is never generated."""
        special = [index for index, token in enumerate(turn) if token in self.tokenizer.all_special_ids]
        return special[-1] + 1 if special else len(turn)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _render(self, turns: Sequence[Message], open_turn: bool) -> str:
        options = {"tokenize": False, "add_generation_prompt": open_turn, **self.template_options}
        try:
            return self.tokenizer.apply_chat_template(turns, **options)
        except (TemplateError, TypeError) as error:
            raise ValueError(f"The chat template cannot render the messages of the demonstration: {error}.") from error


def _text_message(message: Message) -> dict[str, Any]:
    """A message without the keys that `datasets` filled with None, its content as one string."""
    kept = {key: value for key, value in message.items() if value is not None}
    if isinstance(kept.get("content"), list):
        kept["content"] = _joined_parts(kept["content"])
    return kept


def _joined_parts(parts: Sequence[Message]) -> str:
    others = sorted({str(part.get("type")) for part in parts if part.get("type") != "text"})
    if others:
        raise ValueError(f"A demonstration must contain only text, got a message with parts of type {others}.")
    return "".join(part["text"] for part in parts)


def _plain_text(demonstration: Demonstration) -> str | None:
    """The text of a demonstration that is one plain assistant turn, or None if it needs the chat template."""
    if isinstance(demonstration, str):
        return demonstration
    messages = [demonstration] if isinstance(demonstration, Mapping) else list(demonstration or [])
    if len(messages) > 1:
        return None
    message = _text_message(messages[0])
    is_plain = message.keys() == {"role", "content"} and message["role"] == "assistant"
    return message["content"] if is_plain else None


def _after_opened_think(prompt_tail: str, text: str) -> str:
    """Remove from a demonstration the `<think>`, or the complete thinking, that the prompt already contains."""
    opened, rest = prompt_tail.rstrip(), text.lstrip()
    if not rest.startswith(THINK):
        return text
    if opened.endswith(THINK):
        rest = rest[len(THINK) :]
    elif opened.endswith(END_OF_THINK) and END_OF_THINK in rest:
        rest = rest.split(END_OF_THINK, 1)[1]
    else:
        return text
    return rest.removeprefix(prompt_tail[len(opened) :])


def _continuation(before: str, after: str) -> str:
    """What `after` adds to `before`."""
    if not after.startswith(before):
        raise ValueError(
            "The chat template rewrites earlier turns when messages of the demonstration are added, so the result does "
            f"not begin with the prompt: {before[-60:]!r} became {after[: len(before)][-60:]!r}. Provide the "
            "demonstration as one string instead."
        )
    return after[len(before) :]
