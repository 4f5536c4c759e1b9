"""Prompts are formatted as conversations or as texts."""

import pytest

from hpt_trl.data.prompts import INSTRUCTION, PromptStyle
from hpt_trl.data.refusal_report import RefusedError
from tests.data import samples

USER = [{"role": "user", "content": "6*7?"}]
SYSTEM = [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("style", "prompt", "is_question", "expected"),
    [
        ({}, "6*7?", True, [{"role": "user", "content": f"6*7?\n{INSTRUCTION}"}]),
        ({}, "6*7?", False, "6*7?"),
        ({}, SYSTEM + USER, False, SYSTEM + USER),
        ({"format": "text"}, " 6*7? ", True, f"6*7?\n{INSTRUCTION}\n"),
        ({"format": "text"}, "6*7=", False, "6*7="),
        ({"format": "text"}, SYSTEM + USER, False, f"6*7?\n{INSTRUCTION}\n"),
        ({"format": "text"}, [{"role": "user", "content": "6*7? \\boxed{}!"}], False, "6*7? \\boxed{}!\n"),
        ({"format": "text", "template": "Q: {question}\nA:"}, SYSTEM + USER, False, "Q: 6*7?\nA:"),
        ({"format": "chat"}, "6*7?", False, USER),
        ({"template": "{question}"}, "6*7?", True, USER),
        ({"template": "Hey. {question}"}, "6*7?", False, "Hey. 6*7?"),
        ({"template": "Hey. {question}"}, SYSTEM + USER, False, [*SYSTEM, {"role": "user", "content": "Hey. 6*7?"}]),
        ({"system": "Be kind."}, SYSTEM + USER, False, [{"role": "system", "content": "Be kind."}, *USER]),
        ({"system": "Be brief.", "template": "{question}"}, "6*7?", True, SYSTEM + USER),
        ({"system": ""}, SYSTEM + USER, False, USER),
    ],
)
def test_prompts_follow_the_style(style, prompt, is_question, expected):
    assert PromptStyle(**style).apply(prompt, is_question) == expected


def test_other_braces_in_a_template_are_kept():
    assert PromptStyle("text", "{question} \\boxed{}").apply("{a} {question}", True) == "{a} {question} \\boxed{}"


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"format": "html"}, "must be 'chat' or 'text', got 'html'"),
        ({"template": "{problem}"}, "prompt_template must contain {question}"),
        ({"format": "text", "system": "s"}, "prompt_system needs conversations, but prompt_format is 'text'"),
    ],
)
def test_invalid_styles_are_errors(style, message):
    with pytest.raises(ValueError, match=message):
        PromptStyle(**style)


def test_prompts_that_cannot_be_converted_are_refused():
    with pytest.raises(RefusedError, match="3 turns cannot become a text"):
        PromptStyle("text").apply(samples.CHAT[0]["messages"][:3], False)
    with pytest.raises(ValueError, match="Set prompt_format to 'chat'"):
        PromptStyle(system="s").apply("6*7=", False)
