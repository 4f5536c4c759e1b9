"""Demonstrations that the verifier rejects, or that are longer than the limit, are warned of before the first step."""

import logging
from itertools import pairwise

import pytest
from datasets import Dataset

from hpt_trl.rewards import accuracy_reward
from hpt_trl.trainer.demonstration_checks import sample, wrong_demonstrations
from tests.tiny import make_trainer

REJECTED = "accuracy_reward does not accept"
TOO_LONG = "longer than the limit"


def rows(wrong: int = 0, unreadable: int = 0, count: int = 16) -> Dataset:
    """Sums with demonstrations of 4 tokens with EOS, such as `\\boxed{4}`, of which the last ones are wrong."""
    return Dataset.from_list(
        [
            {
                "prompt": f"{i % 5}+0?",
                "demonstration": f"\\boxed{{{9 if i >= count - wrong else i % 5}}}",
                "solution": "" if i < unreadable else str(i % 5),
            }
            for i in range(count)
        ]
    )


def warnings_of(model, folder, caplog, reward=accuracy_reward, **options) -> str:
    with caplog.at_level(logging.WARNING):
        make_trainer(
            model, folder, **({"max_steps": 1, "reward": reward, "max_completion_length": 10} | options)
        ).train()
    return caplog.text


def test_good_demonstrations_are_not_warned_of(tiny_model, tmp_path, caplog):
    text = warnings_of(tiny_model, tmp_path, caplog, rows=rows())
    assert REJECTED not in text
    assert TOO_LONG not in text


def test_wrong_demonstrations_are_warned_of_once_with_their_share_and_an_example(tiny_model, tmp_path, caplog):
    options = {"rows": rows(wrong=4, unreadable=6), "save_strategy": "steps", "save_steps": 1}
    text = warnings_of(tiny_model, tmp_path, caplog, **options)
    # Of 16 rows, 6 have no readable solution: 4 of 10.
    assert text.count(REJECTED) == 1
    assert "4 of 10 sampled demonstrations (40%)" in text
    assert "the demonstration of row 12 ends with '\\\\boxed{9}', and its solution is '2' (verdict: wrong)" in text
    caplog.clear()
    trainer = make_trainer(
        tiny_model, tmp_path, max_steps=2, reward=accuracy_reward, max_completion_length=10, **options
    )
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2
    assert REJECTED not in caplog.text


def test_the_last_message_of_a_conversation_is_judged():
    conversation = [{"role": "assistant", "content": "\\boxed{1}"}, {"role": "user", "content": "Sure?"}]
    demonstrations = [[*conversation, {"role": "assistant", "content": text}] for text in ("\\boxed{2}", "Yes.")]
    prompt = [{"role": "user", "content": "1+1?"}]
    data = Dataset.from_list([{"prompt": prompt, "demonstration": each, "solution": "2"} for each in demonstrations])
    warning = wrong_demonstrations(sample(data))
    assert "1 of 2 sampled" in warning
    assert "row 1 ends with 'Yes.', and its solution is '2' (verdict: unparseable answer)" in warning


def test_reward_functions_of_the_user_are_not_called_with_demonstrations(tiny_model, tmp_path, caplog):
    calls = []

    def own_reward(completions, **kwargs):
        calls.append(len(completions))
        return [0.0] * len(completions)

    assert REJECTED not in warnings_of(tiny_model, tmp_path, caplog, own_reward, rows=rows(wrong=16))
    assert calls == [16]  # the rollouts of the only step


@pytest.mark.parametrize("options", [{}, {"sft_warmup_steps": 1}])
def test_without_a_gate_only_the_warm_up_is_warned_of(tiny_model, tmp_path, caplog, options):
    text = warnings_of(
        tiny_model, tmp_path, caplog, gate="off", rows=rows(wrong=16), max_demonstration_length=3, **options
    )
    assert (REJECTED in text, TOO_LONG in text) == (bool(options), bool(options))


@pytest.mark.parametrize(("limit", "overflow", "effect"), [
    (3, "cut", "cut, and teach neither the answer nor how to end"),
    (3, "refuse", "refused, and never used"),
    (4, "cut", None),
])  # fmt: skip
def test_demonstrations_longer_than_the_limit_are_warned_of(tiny_model, tmp_path, caplog, limit, overflow, effect):
    options = {"max_demonstration_length": limit, "demonstration_overflow": overflow}
    text = warnings_of(tiny_model, tmp_path, caplog, rows=rows(), **options)
    assert (TOO_LONG in text) == (effect is not None)
    if effect:
        assert f"16 of 16 sampled demonstrations (100%) are {TOO_LONG} of 3 tokens" in text
        assert effect in text
        assert "row 0 has 4 tokens" in text


def test_a_few_long_demonstrations_are_left_to_the_report(tiny_model, tmp_path, caplog):
    data = rows()
    long = data.map(lambda row, i: {"demonstration": "?" * 9 * (i < 7) + row["demonstration"]}, with_indices=True)
    assert TOO_LONG not in warnings_of(tiny_model, tmp_path, caplog, rows=long)


def test_the_sample_is_spread_over_the_rows_with_a_demonstration():
    data = Dataset.from_list(
        [{"prompt": f"{i}?", "demonstration": "5" if i % 100 == 0 else None, "solution": "5"} for i in range(4000)]
    )
    found = list(sample(data))
    # Searched are 1,024 rows; only those at multiples of 100 can be found.
    assert found
    assert all(index % 100 == 0 for index in found)
    everywhere = Dataset.from_list([{"prompt": "1?", "demonstration": "5", "solution": "5"}] * 4000)
    found = list(sample(everywhere))
    assert len(found) == 32
    assert max(b - a for a, b in pairwise(found)) < 130
    assert sample(everywhere.to_iterable_dataset()) == {}


def test_rows_that_cannot_be_read_do_not_end_the_run(tiny_model, tmp_path, caplog):
    data = [
        {"prompt": "1+1?", "demonstration": demonstration, "solution": None}
        for demonstration in ([{"role": "user", "content": "2"}], [], [{"role": "assistant", "content": "4"}], None)
    ]
    text = warnings_of(tiny_model, tmp_path, caplog, rows=Dataset.from_list(data))
    assert "Refused the demonstration of prompt" in text
    assert REJECTED not in text
