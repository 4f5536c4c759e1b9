"""A demonstration is what the policy's chat template writes, and what the assistant wrote of it is trained on."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken
from trl.chat_template_utils import get_training_chat_template

from hpt_trl.trainer.demonstrations import DemonstrationTokenizer
from tests.trainer.chat_templates import (
    ADD,
    ANSWER,
    CALL,
    CASES,
    NAMES,
    PROMPT,
    demonstration_tokenizer,
    stop_tokens,
    template_tokenizer,
    tokens_after_prompt,
    trained_turns,
)

# The turns that are trained on, by template and case; None where the template cannot write the conversation.
EXPECTED = json.loads((Path(__file__).parents[1] / "fixtures" / "chat_templates.json").read_text(encoding="utf-8"))
# Templates that write an earlier turn in another way once another one follows: only TRL's training version has both.
REWRITING = {("qwen3", "turns"), ("qwen3", "tools"), *((f"qwen3_{n}", "turns") for n in ("5_nothink", "5_think", "6"))}
# The original writes no arguments that are mappings; it writes the header of a turn that goes on after a tool.
OTHER = {("deepseekv3", "tools"), ("diffusion_gemma", "tools")}


@pytest.fixture(scope="module", params=NAMES)
def template(request):
    return request.param, template_tokenizer(request.param)


def tokenized(name, tokenizer, case):
    return tokens_after_prompt(
        demonstration_tokenizer(name, tokenizer, tools=[ADD] if case == "tools" else None), CASES[case]
    )


def test_the_fixture_has_every_template():
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("case", CASES)
def test_every_template_of_trl_decides_what_is_trained(template, case):
    name, tokenizer = template
    if EXPECTED[name][case] is None:
        with pytest.raises(ValueError, match=r"The chat template (does not write tool calls|cannot render)"):
            tokenized(name, tokenizer, case)
        return
    prompt, tokens = tokenized(name, tokenizer, case)
    assert trained_turns(tokenizer, tokens) == EXPECTED[name][case]
    assert tokens.mask[-1] == 1
    assert tokens.ids[-1] in tokenizer.convert_tokens_to_ids(stop_tokens(name))
    if "<think>" not in prompt[-30:] and name not in ("idefics3", "llava_next", "smolvlm"):
        written = tokenizer.apply_chat_template(
            PROMPT + CASES[case],
            tokenize=False,
            tools=[ADD] if case == "tools" else None,
            chat_template=_training_template(tokenizer),
        )
        assert written.startswith(prompt + tokenizer.decode(tokens.ids))


def _training_template(tokenizer):
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        return None


@pytest.mark.parametrize("case", CASES)
def test_a_template_that_trl_does_not_know_is_read_as_well(template, case):
    name, tokenizer = template
    if EXPECTED[name][case] is None or (name, case) in OTHER:
        return
    original = tokenizer.chat_template
    tokenizer.chat_template += "{# mine #}"
    try:
        if (name, case) in REWRITING:
            with pytest.raises(ValueError, match="rewrites earlier turns"):
                tokenized(name, tokenizer, case)
        else:
            assert trained_turns(tokenizer, tokenized(name, tokenizer, case)[1]) == EXPECTED[name][case]
    finally:
        tokenizer.chat_template = original


@pytest.mark.parametrize("form", ["It is 5.", ANSWER, [ANSWER]])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gptoss", "<|channel|>final<|message|>It is 5.<|return|>"),
        ("cohere2", "It is 5.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    ],
)
def test_a_text_and_a_message_go_through_the_template(name, expected, form):
    tokenizer = template_tokenizer(name)
    assert trained_turns(tokenizer, tokens_after_prompt(demonstration_tokenizer(name, tokenizer), form)[1]) == [
        expected
    ]


@pytest.mark.parametrize(
    ("demonstration", "expected"),
    [
        ("5", "\n</think>\n\n5<|im_end|>"),
        ("hm</think>5", "hm\n</think>\n\n5<|im_end|>"),
        ("<think>hm</think>\n\n5", "hm\n</think>\n\n5<|im_end|>"),
        (ANSWER | {"reasoning_content": "hm"}, "hm\n</think>\n\nIt is 5.<|im_end|>"),
    ],
)
@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_6", "qwen3_8"])
def test_thinking_that_the_prompt_opens_is_continued_or_closed(name, demonstration, expected):
    tokenizer = template_tokenizer(name)
    prompt, tokens = tokens_after_prompt(demonstration_tokenizer(name, tokenizer), demonstration)
    assert prompt.endswith("<think>\n")
    assert tokenizer.decode(tokens.ids) == expected


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "qwen3_8"])
def test_thinking_that_the_prompt_closes_is_left_out(name):
    tokenizer = template_tokenizer(name)
    for demonstration in (
        "<think>\nhm\n</think>\n\n5",
        {"role": "assistant", "content": "5", "reasoning_content": "hm"},
    ):
        tokenize = demonstration_tokenizer(name, tokenizer, enable_thinking=False)
        assert tokenizer.decode(tokens_after_prompt(tokenize, demonstration)[1].ids) == "5<|im_end|>"


QWQ = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].split('</think>')[-1].lstrip('\n') }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


@pytest.mark.parametrize(
    ("demonstration", "expected"),
    [("5", "\n</think>\n\n5<|im_end|>"), ("<think>\nhm\n</think>\n\n5", "hm\n</think>\n\n5<|im_end|>")],
)
def test_thinking_that_a_template_removes_is_trained_where_the_prompt_opens_it(demonstration, expected):
    """QwQ's template removes the thinking of every turn, and opens it in the generation prompt."""
    tokenizer = template_tokenizer("qwen3")
    tokenizer.chat_template = QWQ
    tokens = tokens_after_prompt(demonstration_tokenizer("qwen3", tokenizer), demonstration)[1]
    assert tokenizer.decode(tokens.ids) == expected


def test_thinking_of_later_turns_is_opened_by_their_prompt():
    tokenizer = template_tokenizer("deepseekv3")
    tokens = tokens_after_prompt(demonstration_tokenizer("deepseekv3", tokenizer), CASES["turns"])[1]
    texts = [
        tokenizer.decode([token for token, mask in zip(tokens.ids, tokens.mask) if mask == wanted]) for wanted in (0, 1)
    ]
    user, assistant, end = (f"<\uff5c{role}\uff5c>" for role in ("User", "Assistant", "end\u2581of\u2581sentence"))
    assert texts[0] == f"{user}Sure?{assistant}<think>\n"
    assert texts[1] == f"\n</think>\n\nNo.{end}\n</think>\n\nIt is 5.{end}"


def test_arguments_of_tool_calls_may_be_json():
    """OpenAI's API writes them so, and so does a data set whose calls have different arguments."""
    tokenizer = template_tokenizer("qwen3")
    as_json = [
        CASES["tools"][0] | {"tool_calls": [CALL | {"function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}]}
    ]
    tokens = tokens_after_prompt(demonstration_tokenizer("qwen3", tokenizer), as_json + CASES["tools"][1:])[1]
    assert trained_turns(tokenizer, tokens) == EXPECTED["qwen3"]["tools"]


def test_what_generation_stops_at_ends_a_turn_that_writes_it_in_the_next_one():
    """As GLM's does, whose turns end with the role of the next one."""
    tokenizer = template_tokenizer("llama3")
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("<|user|>", "<|assistant|>")])
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenize = DemonstrationTokenizer(tokenizer, [tokenizer.convert_tokens_to_ids("<|user|>")], {})
    tokens = tokens_after_prompt(tokenize, CASES["turns"])[1]
    assert trained_turns(tokenizer, tokens) == ["No.<|user|>", "It is 5.<|user|>"]
