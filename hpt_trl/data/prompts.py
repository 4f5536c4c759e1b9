"""Formats a question or a complete prompt as the prompt for the policy: a conversation or a text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpt_trl.data.refusal_report import Reason, RefusedError

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""Appended to every question. Source: the prompt of Qwen2.5-Math, which the paper uses."""

QUESTION = "{question}"
CHAT_TEMPLATE = f"{QUESTION}\n{INSTRUCTION}"
TEXT_TEMPLATE = f"{CHAT_TEMPLATE}\n"
"""For base models without a chat template. The final line break prevents a token from spanning prompt and answer."""

Prompt = str | list[dict[str, str]]

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}


def question_prompt(question: str) -> list[dict[str, str]]:
    r"""One user message: the question and the instruction to box the answer.

    Example:
        >>> question_prompt("What is 2 + 3?")[0]["content"].splitlines()
        ['What is 2 + 3?', 'Please reason step by step, and put your final answer within \\boxed{}.']
    """
    return [{"role": "user", "content": CHAT_TEMPLATE.replace(QUESTION, question.strip())}]


def clean_text(text: str) -> str:
    """The text with all line breaks as `\\n`.

    Raises:
        RefusedError: for an unpaired surrogate, which can be neither encoded in a file nor tokenized.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(Reason.MALFORMED, f"text that is not valid Unicode at character {error.start}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_message(message: Any) -> dict[str, str]:
    """One message as `{"role", "content"}`, from that form or ShareGPT's `{"from", "value"}`.

    Raises:
        RefusedError: if the role is missing, or the content is not text, such as images or tool calls.
    """
    if not isinstance(message, Mapping):
        raise RefusedError(Reason.MALFORMED, f"a message must have a role and a content, got {type(message).__name__}")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if message.get("tool_calls"):
        raise RefusedError(Reason.MALFORMED, "a message with tool calls")
    if isinstance(content, Sequence) and not isinstance(content, str):
        others = [part for part in content if not isinstance(part, Mapping) or part.get("type") != "text"]
        if others:
            raise RefusedError(Reason.MALFORMED, "a message with parts that are not text")
        content = "".join(str(part.get("text") or "") for part in content)
    if not isinstance(role, str) or not isinstance(content, str | None):
        raise RefusedError(Reason.MALFORMED, f"a message with role {role!r} and content {type(content).__name__}")
    return {"role": SHAREGPT_ROLES.get(role, role), "content": clean_text(content or "")}


@dataclass(frozen=True)
class PromptStyle:
    """
    How prompts are formatted.

    Args:
        format: "chat" or "text". None turns questions into conversations and leaves complete prompts unchanged.
        template: text that contains `{question}`. None appends the instruction to box the answer to questions, and
            leaves complete prompts unchanged.
        system: content of the system message. "" removes an existing one, None leaves it unchanged.
    """

    format: str | None = None
    template: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        if self.format not in (None, "chat", "text"):
            raise ValueError(f"prompt_format must be 'chat' or 'text', got {self.format!r}.")
        if self.template is not None and QUESTION not in self.template:
            raise ValueError(f"prompt_template must contain {QUESTION}, got {self.template!r}.")
        if self.system is not None and self.format == "text":
            raise ValueError(
                "prompt_system needs conversations, but prompt_format is 'text'. Write the text into prompt_template."
            )

    def apply(self, prompt: Prompt, is_question: bool) -> Prompt:
        """The prompt to train on.

        Args:
            prompt: a question, or a complete prompt (text or messages).
            is_question: whether a text is a bare question.

        Raises:
            RefusedError: if a conversation of several turns would have to become a text.
            ValueError: if a system message is set but the prompts are texts.
        """
        if not isinstance(prompt, str):
            return self._to_text(prompt) if self.format == "text" else self._with_system(self._with_template(prompt))
        becomes_text = self.format == "text" or (self.format is None and not is_question)
        if becomes_text and self.system is not None:
            raise ValueError(
                "prompt_system needs conversations, but the prompts are texts. Set prompt_format to 'chat'."
            )
        template = self.template or QUESTION
        if is_question and not self.template:
            template = TEXT_TEMPLATE if becomes_text else CHAT_TEMPLATE
        text = prompt if template == QUESTION and not is_question else _fill(template, prompt)
        return text if becomes_text else self._with_system([{"role": "user", "content": text}])

    def _to_text(self, messages: list[dict[str, str]]) -> str:
        turns = [message for message in messages if message["role"] != "system"]
        if len(turns) != 1:
            raise RefusedError(Reason.MALFORMED, f"a conversation of {len(turns)} turns cannot become a text prompt")
        question = turns[0]["content"]
        has_instruction = "\\boxed" in question
        return _fill(self.template or (f"{QUESTION}\n" if has_instruction else TEXT_TEMPLATE), question)

    def _with_template(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        if self.template is None:
            return messages
        *context, last = messages
        return [*context, last | {"content": _fill(self.template, last["content"])}]

    def _with_system(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        if self.system is None:
            return messages
        turns = [message for message in messages if message["role"] != "system"]
        return [{"role": "system", "content": self.system}, *turns] if self.system else turns


def _fill(template: str, question: str) -> str:
    return template.replace(QUESTION, question.strip())


def question_text(prompt: Prompt) -> str:
    """The text of a prompt, without the system message of a conversation."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt if message["role"] != "system")
