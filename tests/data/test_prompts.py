"""Prompts as conversations and as texts."""

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
def test_prompts_are_written_as_asked(style, prompt, is_question, expected):
    assert PromptStyle(**style).apply(prompt, is_question) == expected


def test_a_template_with_braces_is_left_alone():
    assert PromptStyle("text", "{question} \\boxed{}").apply("{a} {question}", True) == "{a} {question} \\boxed{}"


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"format": "html"}, "must be 'chat' or 'text', got 'html'"),
        ({"template": "{problem}"}, "prompt_template must have {question}"),
        ({"format": "text", "system": "s"}, "prompt_system has no place in a text prompt"),
    ],
)
def test_styles_that_cannot_be_are_refused(style, message):
    with pytest.raises(ValueError, match=message):
        PromptStyle(**style)


def test_what_has_no_such_form_is_refused():
    with pytest.raises(RefusedError, match="3 turns cannot become a text"):
        PromptStyle("text").apply(samples.CHAT[0]["messages"][:3], False)
    with pytest.raises(ValueError, match="set prompt_format to 'chat'"):
        PromptStyle(system="s").apply("6*7=", False)
