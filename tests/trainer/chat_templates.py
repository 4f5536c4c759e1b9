"""Tokenizers for every chat template that TRL ships, and conversations to render with them."""

import re
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken
from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor, PreTrainedTokenizerFast, ProcessorMixin

from hpt_trl.miniature.build import build_tokenizer
from hpt_trl.trainer.demonstrations import DemonstrationTokenizer, DemonstrationTokens

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))

PROMPT = [{"role": "user", "content": "2+3=?"}]
ANSWER = {"role": "assistant", "content": "It is 5."}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}
CASES: dict[str, list[dict[str, Any]]] = {
    "answer": [ANSWER],
    "turns": [{"role": "assistant", "content": "No."}, {"role": "user", "content": "Sure?"}, ANSWER],
    "inline thinking": [{"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 5."}],
    "thinking": [ANSWER | {"reasoning_content": "hm"}],
    "tools": [
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "add", "content": "5"},
        ANSWER,
    ],
}
_NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
ADD = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": _NUMBERS}},
}

_READ_PARTS = ("idefics3", "llava_next", "smolvlm")  # contents are lists of parts in these templates
_STOP_TOKENS = {
    "cohere": ["<|END_OF_TURN_TOKEN|>"],
    "deepseek": ["<\uff5cend\u2581of\u2581sentence\uff5c>"],
    "diffusion_gemma": ["<turn|>", "<|tool_response>"],
    "gemma": ["<end_of_turn>"],
    "gemma4": ["<turn|>", "<|tool_response>"],
    "glm4moe": ["<|endoftext|>", "<|user|>", "<|observation|>"],
    "gptoss": ["<|return|>", "<|call|>"],
    "idefics3": ["<end_of_utterance>"],
    "llama3": ["<|eot_id|>", "<|eom_id|>"],
    "llava_next": ["</s>"],
    "muse": ["<|eot|>"],
    "phi3": ["<|end|>", "<|endoftext|>"],
    "smolvlm": ["<end_of_utterance>"],
}
_SPECIAL = re.compile(r"<\|[\w ]+\|>|<\|\w+>|<\w+\|>|<\uff5c[^\uff5c]+\uff5c>|<\w+_of_\w+>|</s>")


def stop_tokens(name: str) -> list[str]:
    """The tokens at which the models with a template stop."""
    known = [prefix for prefix in _STOP_TOKENS if name.startswith(prefix)]
    return _STOP_TOKENS[max(known, key=len)] if known else ["<|im_end|>"]


def template_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a template of TRL and its special tokens, none of which it knows by a role."""
    tokenizer = build_tokenizer()
    tokenizer.bos_token = "<bos>"
    tokenizer.model_max_length = 100_000
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    special = sorted({*_SPECIAL.findall(tokenizer.chat_template), *stop_tokens(name)})
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def processing_class(name: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast | ProcessorMixin:
    """The tokenizer, or a processor with it for the templates of vision-language models."""
    if name not in _READ_PARTS:
        return tokenizer
    images = LlavaNextImageProcessorPil()
    return LlavaNextProcessor(images, tokenizer, chat_template=tokenizer.chat_template)


def demonstration_tokenizer(name: str, tokenizer: PreTrainedTokenizerFast, **options: Any) -> DemonstrationTokenizer:
    """What tokenizes demonstrations for a policy with a template."""
    stop_ids = tokenizer.convert_tokens_to_ids(stop_tokens(name))
    return DemonstrationTokenizer(processing_class(name, tokenizer), stop_ids, options)


def tokens_after_prompt(tokenize: DemonstrationTokenizer, demonstration: Any) -> tuple[str, DemonstrationTokens]:
    """The text of the opened prompt, and the tokens of a demonstration after it."""
    prompt = tokenize.renderer.opened(PROMPT)
    ids = tokenize.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return prompt, tokenize(PROMPT, demonstration, ids)


def trained_turns(tokenizer: PreTrainedTokenizerFast, tokens: DemonstrationTokens) -> list[str]:
    """The texts that are trained on, one per turn."""
    runs: list[list[int]] = []
    was_trained = 0
    for token, is_trained in zip(tokens.ids, tokens.mask):
        if is_trained and not was_trained:
            runs.append([])
        if is_trained:
            runs[-1].append(token)
        was_trained = is_trained
    return [tokenizer.decode(run) for run in runs]
