"""A TRL reward function takes the place of our verifier."""

import pytest

from hpt_trl.verifier.custom import named_verifier
from hpt_trl.verifier.grader import Verdict

RIGHT, WRONG, UNPARSEABLE_GOLD = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSEABLE_GOLD

MODULE = """
calls = []

def same_text(prompts, completions, completion_ids, solution, level, **kwargs):
    calls.append((prompts, completions, completion_ids, solution, level))
    texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
    return [None if not gold else 1.0 if text == gold else 0.5 for text, gold in zip(texts, solution)]

async def later(completions, **kwargs):
    return [1.0 for _ in completions]

def too_few(completions, **kwargs):
    return [1.0]

def not_a_number(completions, **kwargs):
    return [float("nan") for _ in completions]
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_verifier_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_verifier_module"


def test_the_function_is_called_as_trl_calls_it(module):
    verifier = named_verifier(f"{module}.same_text")
    question = [{"role": "user", "content": "1+1?"}]
    columns = {"solution": ["2", "2", ""], "level": [1, 2, 3], "prompt": ["dropped"] * 3}
    assert verifier([question, question, "1+1="], ["2", "3", "2"], columns) == [RIGHT, WRONG, UNPARSEABLE_GOLD]
    import my_verifier_module

    messages = [[{"role": "assistant", "content": text}] for text in "23"]
    assert my_verifier_module.calls == [
        ([question, question, "1+1="], [*messages, "2"], [None] * 3, ["2", "2", ""], [1, 2, 3])
    ]


def test_a_coroutine_is_awaited(module):
    assert named_verifier(f"{module}.later")(["?"] * 2, ["a", "b"], {"solution": ["", ""]}) == [RIGHT, RIGHT]


def test_a_wrong_number_of_rewards_and_nan_are_errors(module):
    with pytest.raises(ValueError, match="too_few' must return a list of 2 rewards"):
        named_verifier(f"{module}.too_few")(["?"] * 2, ["a", "b"], {"solution": ["", ""]})
    with pytest.raises(ValueError, match="not_a_number' returned NaN"):
        named_verifier(f"{module}.not_a_number")(["?"], ["a"], {"solution": [""]})


def test_an_unknown_name_is_an_error():
    with pytest.raises(
        ValueError, match=r"verifier must be one of .* or a dotted path like my_module.my_reward, got 'x'"
    ):
        named_verifier("x")
    with pytest.raises(ImportError, match="no module 'no_such_module'"):
        named_verifier("no_such_module.reward")
