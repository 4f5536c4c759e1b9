"""From a demonstration as text or messages to the token ids that continue the prompt of the policy."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpt_trl.common.thinking import TAIL_TOKENS, after_opened, message_in_context
from hpt_trl.trainer.chat_rendering import ChatRenderer, Piece
from hpt_trl.trainer.demonstration_forms import Demonstration, Message, messages_of

_TAIL_CHARACTERS = 256
"""Of a prompt: enough to know how the tokenizer continues it."""


class DemonstrationTokens(NamedTuple):
    """T token ids of one demonstration, and a mask that is 1 on those that are trained on."""

    ids: list[int]
    mask: list[int]
    was_cut: bool = False


def prompt_identifier(example: Mapping[str, Any]) -> str:
    """The example's `prompt_id` if it has one, else a checksum of its prompt or, without a prompt, of all columns."""
    if example.get("prompt_id") is not None:
        return str(example["prompt_id"])
    content = example.get("prompt", dict(example))
    images = {name: example[name] for name in ("image", "images") if example.get(name) is not None}
    text = json.dumps([content, images] if images else content, sort_keys=True, default=_pixels)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pixels(value: Any) -> str:
    """A checksum of an image, whose text names its place in memory; the text of anything else."""
    return hashlib.sha256(value.tobytes()).hexdigest() if hasattr(value, "tobytes") else str(value)


def truncated(tokens: DemonstrationTokens, max_length: int) -> DemonstrationTokens:
    """The first `max_length` tokens, without EOS if any were removed: the policy must not learn to stop there."""
    if len(tokens.ids) <= max_length:
        return tokens
    return DemonstrationTokens(tokens.ids[:max_length], tokens.mask[:max_length], was_cut=True)


class DemonstrationTokenizer:
    """
    Tokenizes demonstrations as the policy would have to generate them.

    Args:
        processing_class: the policy's tokenizer, or its processor; the tokenizer must have an EOS token.
        stop_ids: token ids at which generation stops.
        template_options: arguments of `apply_chat_template`, the same as for the prompts.
    """

    def __init__(self, processing_class: Any, stop_ids: Sequence[int], template_options: Mapping[str, Any]) -> None:
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.stop_ids = frozenset(stop_ids)
        stop_tokens = self.tokenizer.convert_ids_to_tokens(sorted(self.stop_ids))
        self.renderer = ChatRenderer(processing_class, [token for token in stop_tokens if token], template_options)

    def __call__(
        self, prompt: str | Sequence[Message], demonstration: Demonstration, prompt_ids: Sequence[int]
    ) -> DemonstrationTokens:
        """Token ids that continue `prompt_ids` and end where generation would stop.

        Args:
            prompt: text or messages of the prompt.
            demonstration: a text, one assistant message, or a list of messages that ends with the assistant's. Messages
                of other roles are context and are not trained on.
            prompt_ids: the ids that the rollouts started from. A `<think>` that they open is not repeated, and closed
                if the demonstration has no thinking; thinking that they open and close is left out.

        Raises:
            ValueError: if the messages do not end with the assistant's, contain anything but text, or cannot be
                rendered by the chat template.
        """
        opened = self.tokenizer.decode(prompt_ids[-TAIL_TOKENS:])
        messages = messages_of(prompt, demonstration)
        if isinstance(prompt, str):
            text = message_in_context(messages[0], opened, reads_reasoning=False)["content"]
            ids = self._continuing_ids(prompt, after_opened(opened, text))
            return self._with_end(ids, [1] * len(ids), 0, self.tokenizer.eos_token_id)
        pieces = self.renderer.continuation(prompt, self._in_context(prompt, messages, opened))
        if pieces[0].is_trained:
            pieces[0] = Piece(after_opened(opened, pieces[0].text), True)
        return self._tokenized(self.renderer.opened(prompt), pieces)

    def _in_context(self, prompt: Sequence[Message], messages: Sequence[Message], opened: str) -> list[dict[str, Any]]:
        """The messages, with the assistant's thinking where their prompt has a place for it."""
        turns: list[dict[str, Any]] = []
        for message in messages:
            turn = dict(message)
            if message["role"] == "assistant":
                before = self.renderer.opened([*prompt, *turns]) if turns else opened
                turn = message_in_context(message, before, self.renderer.reads_reasoning)
            turns.append(turn)
        return turns

    def _tokenized(self, before: str, pieces: Sequence[Piece]) -> DemonstrationTokens:
        """Token ids of the pieces that follow a text, the last of which the assistant wrote."""
        ids: list[int] = []
        mask: list[int] = []
        last = 0
        for piece in pieces:
            last = len(ids)
            new = self._continuing_ids(before, piece.text)
            ids += new
            mask += [int(piece.is_trained)] * len(new)
            before += piece.text
        end = self.renderer.end_of_answer
        return self._with_end(
            ids, mask, last, self.tokenizer.eos_token_id if end is None else self.tokenizer.convert_tokens_to_ids(end)
        )

    def _with_end(self, ids: list[int], mask: list[int], last: int, end_id: int) -> DemonstrationTokens:
        """The tokens up to the first at which generation stops; without one, it replaces the end of the template.

        Args:
            ids: T token ids.
            mask: T, 1 on those that are trained on.
            last: where the last turn begins.
            end_id: the token that is written if there is no stop token.
        """
        stop = next((index for index in range(last, len(ids)) if ids[index] in self.stop_ids), None)
        if stop is not None:
            return DemonstrationTokens(ids[: stop + 1], mask[: stop + 1])
        token = self.tokenizer.added_tokens_decoder.get(ids[-1]) if ids else None
        kept = len(ids) - (token is not None and token.special)
        return DemonstrationTokens([*ids[:kept], end_id], [*mask[:kept], 1])

    def _continuing_ids(self, before: str, text: str) -> list[int]:
        """Token ids of a text that follows another one, as far as possible those of both together."""
        # A sentencepiece tokenizer writes a space before a text that it is given alone.
        for context in (before[-_TAIL_CHARACTERS:], "\n", ":"):
            ids, all_ids = self._ids(context), self._ids(context + text)
            if all_ids[: len(ids)] == ids:
                return all_ids[len(ids) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
