"""Reward functions know whether the prompt of a completion has opened `<think>`."""

import pytest
from datasets import Dataset

from hpt_trl.verifier.verdicts import accuracy_reward, format_reward
from tests.tiny import CHATML, fixed_rollouts, make_trainer

UNCLOSED = "Perhaps \\boxed{5}, but wait"


@pytest.mark.parametrize("is_chat", [True, False])
@pytest.mark.parametrize("opens", [True, False])
def test_a_rollout_that_never_ends_its_thought_is_not_solved(tiny_model, tmp_path, opens, is_chat):
    tail = "<think>\n" if opens else ""
    question = f"2+3?{'' if is_chat else tail}"
    prompt = [{"role": "user", "content": question}] if is_chat else question
    rows = Dataset.from_list([{"prompt": prompt, "demonstration": "5", "solution": "5"}] * 4)
    trainer = make_trainer(
        tiny_model, tmp_path, rows=rows, reward=[accuracy_reward, format_reward], gate_reward="accuracy_reward"
    )
    trainer.processing_class.chat_template = CHATML.replace("<|assistant|>{% endif", f"<|assistant|>{tail}{{% endif")
    completion = [{"role": "assistant", "content": UNCLOSED}] if is_chat else UNCLOSED
    rewards = trainer._calculate_rewards(list(rows), list(rows["prompt"]), [completion] * 4, [[5]] * 4)
    assert rewards.tolist() == [[0.0 if opens else 1.0] * 2] * 4


def test_only_prompts_that_open_thinking_add_a_column(tiny_model, tmp_path):
    seen = []

    def reward(completions, prompts, **columns):
        seen.append((prompts, columns.get("opens_thinking")))
        return [0.0] * len(completions)

    trainer = make_trainer(tiny_model, tmp_path, reward=reward, trainer={"rollout_func": fixed_rollouts})
    for prompts in (["a<think>", "a<think>", "b"], ["a", "b"]):
        trainer._calculate_rewards(
            [{"solution": "1"}] * len(prompts), prompts, ["x"] * len(prompts), [[5]] * len(prompts)
        )
    assert seen == [(["a<think>", "a<think>", "b"], [True, True, False]), (["a", "b"], None)]


def test_a_function_without_further_arguments_does_not_get_the_column(tiny_model, tmp_path):
    def reward(prompts, completions, completion_ids, solution, trainer_state, log_extra, log_metric):
        return [float(text == answer) for text, answer in zip(completions, solution)]

    trainer = make_trainer(tiny_model, tmp_path, reward=reward, trainer={"rollout_func": fixed_rollouts})
    rewards = trainer._calculate_rewards([{"solution": "x"}] * 2, ["a<think>"] * 2, ["x", "y"], [[5]] * 2)
    assert rewards.tolist() == [[1.0], [0.0]]
