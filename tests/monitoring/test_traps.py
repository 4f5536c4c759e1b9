"""A run that learns nothing of what it should says so, once, after ten steps."""

from types import SimpleNamespace

import pytest
from accelerate import PartialState

from hpt_trl.monitoring.traps import TrapWarnings
from tests.tiny import make_trainer

ARGS = SimpleNamespace(gate_success_value=1.0, gate_reward=None)
HEALTHY = {
    "loss": 0.1, "grad_norm": 0.5, "rewards/accuracy_reward/mean": 0.2, "hpt/solve_rate": 0.2,
    "hpt/demonstration_share": 0.5,
}  # fmt: skip
UNSOLVED = {"rewards/accuracy_reward/mean": 0.5, "hpt/solve_rate": 0.0}
NAN = float("nan")


def warnings_of(entries, caplog, every=1, begin=0):
    """Messages of a run with these log entries, on top of healthy ones."""
    PartialState()
    caplog.clear()
    traps, state = TrapWarnings(), SimpleNamespace(global_step=begin)
    traps.on_train_begin(ARGS, state, None)
    for entry in entries:
        state.global_step += every
        traps.on_log(ARGS, state, None, logs=HEALTHY | entry)
    return [record.getMessage().removeprefix("[RANK 0] ") for record in caplog.records]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (UNSOLVED, "no reward reached gate_success_value (1), although their mean is 0.5. "),
        ({"rewards/accuracy_reward/mean": NAN, "hpt/solve_rate": NAN}, "every reward was None. "),
        (
            {"grad_norm": 0.0, "demonstrations/missing": 2.0},
            "the gradient was zero: the rollouts of each prompt got equal rewards, and no demonstration was used. "
            "Check the reward functions, use prompts that the policy solves sometimes",
        ),
        (
            {"grad_norm": 0.0, "hpt/none_solved": 0.5, "demonstrations/missing": 2.0},
            "the gradient was zero: the rollouts of each prompt got equal rewards, and no demonstration was used. "
            "Prompts that no rollout solves need demonstrations: add them",
        ),
        (
            {"hpt/warmup": 0.0, "hpt/solve_rate": 0.04},
            "fewer than 5% of the rollouts after the SFT warm-up solved their prompt. ",
        ),
    ],
)
def test_each_trap_is_warned_of_once_after_ten_steps(entry, message, caplog):
    assert warnings_of([entry] * 9, caplog) == []
    (warning,) = warnings_of([entry] * 30, caplog)
    assert warning.startswith(f"For 10 steps, up to step 10, {message}")
    (resumed,) = warnings_of([entry] * 30, caplog, begin=40)
    assert resumed.startswith(f"For 10 steps, up to step 50, {message}")
    # One healthy entry, and the count begins again.
    assert warnings_of([*[entry] * 9, {}, *[entry] * 9], caplog) == []
    (rare,) = warnings_of([entry] * 4, caplog, every=10)
    assert rare.startswith("For 30 steps, up to step 30")


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"hpt/solve_rate": 0.04},  # a hard task, without a warm-up
        {"hpt/warmup": 0.0},
        UNSOLVED | {"rewards/accuracy_reward/mean": 0.0},  # nothing is solved, and nothing looks like it
        UNSOLVED | {"hpt/demonstration_share": 0.0},  # GRPO learns from partial credit
        UNSOLVED | {"rewards/accuracy_reward/mean": 0.0, "rewards/format_reward/mean": 0.9},
        {"rewards/accuracy_reward/mean": NAN, "rewards/format_reward/mean": 0.9},
    ],
    ids=["healthy", "hard task", "after a warm-up", "unsolved", "no demonstrations", "another reward", "one of two"],
)
def test_what_is_no_trap_is_not_warned_of(entry, caplog):
    assert warnings_of([entry] * 30, caplog) == []


def test_a_run_on_partial_credit_is_warned_of(tiny_model, tmp_path, caplog):
    def partial(completions, **kwargs):
        return [0.5] * len(completions)

    make_trainer(tiny_model, tmp_path, reward=partial, max_steps=10, gradient_accumulation_steps=1).train()
    assert "For 10 steps, up to step 10, no reward reached gate_success_value (1)" in caplog.text
