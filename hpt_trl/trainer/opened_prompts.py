"""Which prompts end with `<think>`, for those who read the completions."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from hpt_trl.common.thinking import OPENS_THINKING, opens_thinking


def with_opened_thinking(
    trainer: Any, examples: Sequence[Mapping[str, Any]], prompts: Sequence[Any]
) -> Sequence[Mapping[str, Any]]:
    """The data rows, with a column for reward functions that says where the prompt opens `<think>`, if any does.

    Args:
        trainer: a GRPOTrainer.
        examples: B data rows.
        prompts: B texts or conversations.
    """
    tokenizer = trainer._tokenizer
    is_parsed = any(getattr(tokenizer, name, None) is not None for name in ("response_template", "response_schema"))
    opened: list[bool] = []
    for index, prompt in enumerate(prompts):
        if index and prompt == prompts[index - 1]:
            opened.append(opened[-1])
        elif isinstance(prompt, str):
            opened.append(opens_thinking(prompt))
        else:
            # TRL has already separated the thinking from completions that it parses.
            opened.append(not is_parsed and opens_thinking(_opened(trainer, prompt)))
    if not any(opened):
        return examples
    return [{**example, OPENS_THINKING: value} for example, value in zip(examples, opened)]


def _opened(trainer: Any, prompt: Sequence[Mapping[str, Any]]) -> str:
    """A conversation with its generation prompt."""
    options = {"chat_template": trainer.chat_template, **trainer.chat_template_kwargs}
    try:
        return trainer.processing_class.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True, **options
        )
    except (ValueError, TypeError, TemplateError):  # the rollouts were not rendered by the template alone
        return ""
