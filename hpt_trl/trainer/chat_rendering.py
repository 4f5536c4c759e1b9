"""What the policy's chat template writes for a conversation, and which part of it the assistant wrote."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

from jinja2 import TemplateError
from transformers import ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template
from trl.chat_template_utils import get_training_chat_template, has_generation_markers, supports_tool_calling
from trl.data_utils import prepare_multimodal_messages

from hpt_trl.common.formats import THINK
from hpt_trl.common.thinking import REASONING_FIELDS, after_opened, opens_thinking, thoughts_after
from hpt_trl.trainer.demonstration_forms import Message

Span = tuple[int, int]


class Piece(NamedTuple):
    """A part of a continuation, and whether the assistant wrote it."""

    text: str
    is_trained: bool


class _Turn(NamedTuple):
    """Where a turn of the assistant begins in a conversation.

    Its generation prompt may have opened `<think>` where the conversation has none: `opened` is written instead of
    the conversation's text from `cut` to `start`, and `thoughts` behind it.
    """

    cut: int
    start: int
    opened: str = ""
    thoughts: str = ""
    prompt: str = ""


class ChatRenderer:
    """
    Renders conversations with the chat template that the policy is trained by.

    That is TRL's training template where TRL has one for the tokenizer: it marks what the assistant writes. Of any
    other template, what the assistant writes is what its message adds to the conversation before it.

    Args:
        processing_class: the policy's tokenizer, or its processor.
        stop_tokens: the tokens at which generation stops.
        options: arguments of `apply_chat_template`, the same as for the prompts.
    """

    def __init__(self, processing_class: Any, stop_tokens: Sequence[str], options: Mapping[str, Any]) -> None:
        self.processing_class = processing_class
        self.is_multimodal = isinstance(processing_class, ProcessorMixin)
        self.tokenizer = processing_class.tokenizer if self.is_multimodal else processing_class
        self.stop_tokens = tuple(stop_tokens)
        self.options = {name: value for name, value in options.items() if name not in ("chat_template", "tools")}
        self.tools = options.get("tools")
        self.own_template = options.get("chat_template")

    @cached_property
    def template(self) -> str:
        """The training template of TRL that fits, or else the policy's own."""
        if self.own_template is not None:
            return self.own_template
        own = self.processing_class.chat_template
        if not self.is_multimodal:
            own = self.tokenizer.get_chat_template(tools=self.tools)
        elif isinstance(own, dict):
            own = own["default"]
        try:
            return get_training_chat_template(self.processing_class) or own
        except (ValueError, TypeError, TemplateError):  # TRL has none for this template
            return own

    @cached_property
    def reads_reasoning(self) -> bool:
        """Whether the template writes a message's thinking from a field of its own."""
        return any(field in self.template for field in REASONING_FIELDS)

    @cached_property
    def writes_tool_calls(self) -> bool:
        """Whether the template writes tool calls, and does not drop them."""
        return supports_tool_calling(self.processing_class)

    def opened(self, turns: Sequence[Message]) -> str:
        """The conversation up to the point where the assistant begins to write."""
        return self._render(turns, opens_turn=True)[0]

    def continuation(self, prompt: Sequence[Message], turns: Sequence[Message]) -> list[Piece]:
        """What turns add to an opened prompt, in pieces that are written by the assistant or not.

        Args:
            prompt: messages.
            turns: messages after it, the last one from the assistant.

        Raises:
            ValueError: if the template cannot render them, drops tool calls, or changes the prompt when they follow.
        """
        if any(turn.get("tool_calls") for turn in turns) and not self.writes_tool_calls:
            raise ValueError("The chat template does not write tool calls, which the demonstration has.")
        messages = [*prompt, *turns]
        text, marked = self._render(messages, opens_turn=False)
        indices = [i for i in range(len(prompt), len(messages)) if messages[i]["role"] == "assistant"]
        first = self._turn(text, messages, len(prompt))
        if first is None:
            raise _rewrites(self.opened(prompt), text)
        begun = [first if index == len(prompt) else self._turn(text, messages, index) for index in indices]
        if marked:
            spans = self._without_headers(text, marked, begun, [messages[:index] for index in indices])
        else:
            spans = [self._own_span(text, messages, index, turn) for index, turn in zip(indices, begun)]
        spans = [self._with_end(text, span) for span in _joined(spans) if span[1] > first.start]
        return _pieces(text, first, [turn for turn in begun if turn is not None], spans)

    @cached_property
    def end_of_answer(self) -> str | None:
        """The stop token that the template writes after an answer, if it writes one."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
        # Some templates write it at the beginning of the next turn.
        for following in (turns[1:], [*turns[1:], *turns]):
            try:
                written = "".join(piece.text for piece in self.continuation(turns[:1], following))
            except ValueError:
                continue
            found = [(written.index(token), token) for token in self.stop_tokens if token in written]
            if found:
                return min(found)[1]
        return None

    def _turn(self, text: str, messages: Sequence[Message], index: int) -> _Turn | None:
        """Where the turn of a message begins; None if the conversation does not begin with its prompt."""
        opened = self.opened(messages[:index])
        if text.startswith(opened):
            return _Turn(len(opened), len(opened), prompt=opened)
        stem = opened.rstrip().removesuffix(THINK)
        if not opens_thinking(opened) or not text.startswith(stem):
            return None
        own = text[len(stem) :]
        is_written = own.startswith(THINK)  # with other white space
        start = len(text) - len(own.removeprefix(THINK).lstrip("\n"))
        thoughts = "" if is_written else thoughts_after(messages[index], opened)
        return _Turn(len(stem), start, opened[len(stem) :], thoughts, opened)

    def _without_headers(
        self, text: str, marked: Sequence[Span], begun: Sequence[_Turn | None], contexts: Sequence[Sequence[Message]]
    ) -> list[Span]:
        """The marked spans without the headers of turns, which the generation prompt writes.

        Args:
            text: the conversation.
            marked: spans of it.
            begun: the turns of the assistant.
            contexts: the messages before each of them.
        """
        spans = list(marked)
        for turn, context in zip(begun, contexts):
            if turn is not None:
                spans = [(turn.start, end) if start < turn.start < end else (start, end) for start, end in spans]
                continue
            closed, opened = self._render(context, opens_turn=False)[0], self.opened(context)
            header = opened.removeprefix(closed) if opened.startswith(closed) else ""
            spans = [(start + len(header) * text.startswith(header, start), end) for start, end in spans]
        return spans

    def _own_span(self, text: str, messages: Sequence[Message], index: int, turn: _Turn | None) -> Span:
        """Where a message of the assistant is, in a template without marks."""
        if turn is None:
            raise _rewrites(self.opened(messages[:index]), text)
        closed, _ = self._render(messages[: index + 1], opens_turn=False)
        pairs = enumerate(zip(closed, text))
        end = next((at for at, (one, other) in pairs if one != other), min(len(closed), len(text)))
        # Two texts that differ in a special token can share its first characters.
        end = next(
            (token.start() for token in self._specials.finditer(closed) if token.start() < end < token.end()), end
        )
        # As the last message, a turn may have another end, and nothing else.
        if self._specials.sub("", closed[end:]).strip():
            raise _rewrites(closed, text)
        own_end = self._specials.match(text, end)
        has_end = any(
            token.end() == len(text[:end].rstrip()) for token in self._specials.finditer(text, turn.start, end)
        )
        if closed[end:] and own_end and not has_end:
            end = own_end.end()
        return turn.start, max(turn.start, end)

    @cached_property
    def _specials(self) -> re.Pattern[str]:
        """Matches a special token."""
        tokens = {*self.tokenizer.get_added_vocab(), *self.tokenizer.all_special_tokens}
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")

    def _with_end(self, text: str, span: Span) -> Span:
        """A span up to the token that ends the turn: text after that is never generated."""
        start, end = span
        end = start + len(text[start:end].rstrip())
        if text[start:end].endswith(self.stop_tokens):
            return start, end
        following = next((token for token in self.stop_tokens if text.startswith(token, end)), "")
        return start, end + len(following)

    def _render(self, turns: Sequence[Message], opens_turn: bool) -> tuple[str, list[Span]]:
        """The text, and the spans that the template marks as written by the assistant."""
        messages = list(map(dict, turns))
        if self.is_multimodal:
            messages = prepare_multimodal_messages(messages)
        try:
            texts, spans = cast(Any, render_jinja_template)(
                [[{key: value for key, value in message.items() if value is not None} for message in messages]],
                tools=self.tools,
                chat_template=self.template,
                return_assistant_tokens_mask=has_generation_markers(self.template),
                add_generation_prompt=opens_turn,
                **{**self.tokenizer.special_tokens_map, **self.options},
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(f"The chat template cannot render the messages of the demonstration: {error}.") from error
        return texts[0], spans[0] if spans else []


def _rewrites(opened: str, text: str) -> ValueError:
    return ValueError(
        "The chat template rewrites earlier turns when messages of the demonstration are added, so the result does "
        f"not begin with the prompt: {opened[-60:]!r} became {text[: len(opened)][-60:]!r}. Provide the demonstration "
        "as one string instead."
    )


def _joined(spans: Sequence[Span]) -> list[Span]:
    """The spans without empty ones, those that touch made one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and start == joined[-1][1]:
            joined[-1] = joined[-1][0], end
        elif end > start:
            joined.append((start, end))
    return joined


def _pieces(text: str, first: _Turn, turns: Sequence[_Turn], spans: Sequence[Span]) -> list[Piece]:
    """The text from the first turn to the end of the last span, with what generation prompts open in it."""
    pieces: list[Piece] = []
    cursor, pending = first.start, list(turns)
    for start, end in spans:
        start = max(start, first.start)
        written, context = text[start:end], text[cursor:start]
        if pending and pending[0].start <= start:
            turn = pending.pop(0)
            if turn.opened and turn.start > first.start:
                context = text[cursor : turn.cut] + turn.opened + text[turn.start : start]
            written = after_opened(turn.prompt, turn.thoughts + written)
        pieces += [Piece(context, False), Piece(written, True)]
        cursor = end
    return [piece for piece in pieces if piece.text]
