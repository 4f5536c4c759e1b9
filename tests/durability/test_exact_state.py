"""State that transformers does not save: a gate's, evaluations at the start, what an aborted step left behind."""

import sys
from functools import partial

import pytest
import torch
from transformers import TrainerCallback

from hpt_trl import HPTConfig
from hpt_trl.algorithm.gate import gate_weights
from hpt_trl.common.errors import RunError
from hpt_trl.durability.state_of_parts import states, warn_of_lost_state
from tests.durability.test_resume import EVERY_STEP, NAMES, differences, differences_after_resuming, end_of
from tests.tiny import ROWS, make_trainer, parity_reward, rollouts_gate

OPTIONS = EVERY_STEP | {"max_steps": 6, "gate_threshold": 0.0}


class CountingGate:
    """Demonstrations in every second generation, wherever the run is interrupted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, solve_rate_P, step):
        self.calls += 1
        demonstration_P = torch.full_like(solve_rate_P, float(self.calls % 2))
        return 1 - demonstration_P, demonstration_P

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def test_the_state_of_a_gate_is_resumed(tiny_model, tmp_path):
    ends = []
    for name, checkpoint in zip(NAMES, (None, str(tmp_path / "whole" / "checkpoint-3"))):
        gate = CountingGate()
        trainer = make_trainer(tiny_model, tmp_path / name, trainer={"gate": gate.__call__}, **OPTIONS)
        trainer.train(checkpoint)
        ends.append(end_of(trainer))
        assert gate.calls == 3  # one per generation of two steps, also those before the resume
    assert differences(*ends) == []


def test_a_state_that_no_checkpoint_can_hold_is_refused_by_name(tiny_model, tmp_path):
    class Strange(CountingGate):
        def state_dict(self):
            return {"gate": object}

    with pytest.raises(ValueError, match="state_dict of the gate cannot be part of a checkpoint"):
        states({"gate": Strange()})


def counter():
    calls = 0

    def gate(solve_rate_P, step):
        nonlocal calls
        calls += 1
        return rollouts_gate(solve_rate_P, step)

    return gate


def remembering():
    history = []

    def gate(solve_rate_P, step):
        history.append(step)
        return rollouts_gate(solve_rate_P, step)

    return gate


class Forgetful:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, solve_rate_P, step):
        return rollouts_gate(solve_rate_P, step)


def with_threshold(threshold):
    return lambda solve_rate_P, step: rollouts_gate(solve_rate_P + threshold, step)


@pytest.mark.parametrize("gate", [counter(), remembering(), Forgetful(), Forgetful().__call__, partial(counter())])
def test_a_gate_that_keeps_state_without_saving_it_is_warned_of(gate, caplog):
    warn_of_lost_state({"gate": gate})
    assert "seems to keep state" in caplog.text


@pytest.mark.parametrize("gate", [None, rollouts_gate, with_threshold(0.5), partial(rollouts_gate), CountingGate()])
def test_a_gate_without_state_or_that_saves_it_is_not(gate, caplog):
    warn_of_lost_state({"gate": gate})
    assert caplog.text == ""


def test_the_evaluation_at_the_start_is_not_repeated(tiny_model, tmp_path):
    held_out = {"trainer": {"eval_dataset": ROWS.select(range(3))}, "per_device_eval_batch_size": 4}
    options = {"eval_on_start": True, "eval_strategy": "no", "max_steps": 5} | held_out
    assert differences_after_resuming(tiny_model, tmp_path, 3, **options) == []


def test_workers_that_live_through_all_epochs_are_resumed(tiny_model, tmp_path):
    """They draw their seed once, from the generator that samples completions. An epoch is four steps."""
    options = OPTIONS | {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    whole = make_trainer(tiny_model, tmp_path / "whole", **options)
    whole.train()
    for step in (3, 4):
        trainer = make_trainer(tiny_model, tmp_path / str(step), **options | {"save_strategy": "no"})
        trainer.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert differences(end_of(trainer), end_of(whole)) == []


@pytest.mark.parametrize("fault_in", ["reward", "step"])
def test_training_again_after_a_fault_in_the_same_process_is_exact(tiny_model, tmp_path, fault_in):
    calls = []

    def reward(completion_ids, **kwargs):
        calls.append(1)
        if fault_in == "reward" and len(calls) == 2:
            raise KeyError("solution")
        return parity_reward(completion_ids)

    class Break(TrainerCallback):
        broken = False

        def on_substep_end(self, args, state, control, **kwargs):
            if fault_in == "step" and state.global_step == 3 and not self.broken:
                self.broken = True
                raise RunError("broken")

    options = EVERY_STEP | {"max_steps": 6}
    expected = make_trainer(tiny_model, tmp_path / "whole", **options)
    expected.train()
    trainer = make_trainer(tiny_model, tmp_path / "run", reward=reward, trainer={"callbacks": [Break()]}, **options)
    trainer.reward_func_names = expected.reward_func_names
    with pytest.raises(RunError):
        trainer.train()
    trainer.train(True)
    assert differences(end_of(trainer), end_of(expected)) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gate_success_value", float("nan")),
        ("reward_timeout", float("inf")),
        ("reward_timeout", 1e300),
        ("reward_timeout", float("nan")),
        ("max_skipped_steps_in_row", float("nan")),
        ("skip_grad_norm_above", float("nan")),
        ("gate_success_value", float("inf")),
        ("num_generations", 0),
        ("gate_table", '{"x": 1}'),
        ("learning_rate", 3e38),
        ("learning_rate", float("nan")),
        ("learning_rate", -1.0),
    ],
)
def test_values_that_are_no_limits_are_refused(tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option} must be"):
        HPTConfig(str(tmp_path), use_cpu=True, bf16=False, **{option: value})


@pytest.mark.parametrize("reward", [1e300, 3e38, -1e20])
def test_a_reward_whose_statistics_do_not_fit_in_float32_is_refused(tiny_model, tmp_path, reward):
    def huge(completions, **kwargs):
        return [reward] * len(completions)

    with pytest.raises(RunError, match=r"'huge' returned .* for completion 0, whose variance does not fit in float32"):
        make_trainer(tiny_model, tmp_path, reward=huge).train()


def test_a_reward_function_that_changes_its_arguments_changes_nothing_else(tiny_model, tmp_path):
    def clearing(completions, completion_ids, **kwargs):
        rewards = parity_reward(completion_ids)
        for columns in (completions, completion_ids, *kwargs.values()):
            if isinstance(columns, list):
                columns.clear()
        return rewards

    ends = []
    for name, function in zip(NAMES, (parity_reward, clearing)):
        trainer = make_trainer(tiny_model, tmp_path / name, reward=function)
        trainer.train()
        ends.append(trainer.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_gate_that_writes_into_its_argument_changes_nothing_else():
    solve_rate_P = torch.tensor([0.25, 0.5])

    def gate(rates_P, step):
        return rates_P.fill_(0.0), rates_P

    assert gate_weights(gate, solve_rate_P, torch.tensor([True, True]), 0).rollouts_P.tolist() == [0.0, 0.0]
    assert solve_rate_P.tolist() == [0.25, 0.5]


@pytest.mark.parametrize("returned", [None, {"a": 1}, (None, None), 5])
def test_a_gate_that_fails_is_named(returned):
    def mine(solve_rate_P, step):
        return returned

    with pytest.raises(ValueError, match=r"The gate 'mine' failed: .* returns two or three tensors"):
        gate_weights(mine, torch.tensor([0.5]), torch.tensor([True]), 0)
    with pytest.raises(ValueError, match="The gate '<lambda>' failed: TypeError"):
        gate_weights(lambda solve_rate_P: 1, torch.tensor([0.5]), torch.tensor([True]), 0)


@pytest.mark.parametrize("limit", [None, 60.0])
def test_a_reward_function_that_exits_is_named_and_is_no_timeout(tiny_model, tmp_path, limit):
    def exits(completions, **kwargs):
        sys.exit("enough")

    with pytest.raises(RunError, match=r"'exits' raised SystemExit: enough in .*, line \d+"):
        make_trainer(tiny_model, tmp_path, reward=exits, reward_timeout=limit).train()
