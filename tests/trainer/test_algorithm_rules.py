"""What an algorithm takes as rewards, groups and gates, and what cannot go together."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from datasets import Dataset

from hpt_trl import HPTConfig
from hpt_trl.algorithm.estimator import group_advantages
from hpt_trl.algorithm.presets import ALGORITHMS, DR_GRPO, GRPO, OFF_POLICY, PPO, REINFORCE, SFT, Algorithm
from hpt_trl.trainer.checks import check_before_loading, check_support
from tests.tiny import ROWS, fixed_rollouts, gradient_of, make_trainer, parity_reward, relative_error, step_gradient


def test_weighted_and_unscorable_rewards_are_summed_as_trl_sums_them(tiny_model, tmp_path):
    def sometimes(completion_ids, **kwargs):
        return [None if row % 3 == 0 else float(row % 2) for row in range(len(completion_ids))]

    options = {
        "reward": [parity_reward, sometimes],
        "reward_weights": [0.5, 2.0],
        "gate_reward": "parity_reward",
        "trainer": {"rollout_func": fixed_rollouts},
    }
    found = step_gradient(tiny_model, tmp_path, algorithm="dr_grpo", **options)
    assert relative_error(found, step_gradient(tiny_model, tmp_path, gate="off", **options)) < 1e-5


def test_row_by_row_advantages_listen_to_the_named_reward(tiny_model, tmp_path):
    def bonus(completion_ids, **kwargs):
        return [1.0] * len(completion_ids)

    alone = gradient_of(tiny_model, tmp_path, "reinforce")
    options = {"reward": [parity_reward, bonus], "gate_reward": "parity_reward"}
    assert relative_error(gradient_of(tiny_model, tmp_path, "reinforce", **options), alone) == 0


def test_a_demonstration_that_cannot_be_scored_joins_no_group(tiny_model, tmp_path):
    def only_rollouts(completion_ids, **kwargs):
        # The fixed rollouts never hold EOS; demonstrations end with it.
        return [None if 1 in ids else reward for ids, reward in zip(completion_ids, parity_reward(completion_ids))]

    found = gradient_of(tiny_model, tmp_path, "luffy", reward=only_rollouts)
    expected = gradient_of(tiny_model, tmp_path, "hpt", gate="off")
    assert relative_error(found, expected) < 1e-5


def test_a_malformed_demonstration_does_not_end_a_luffy_run(tiny_model, tmp_path):
    part = [{"type": "image", "image": "x"}]
    rows = [
        {"prompt": [{"role": "user", "content": str(i)}], "demonstration": [{"role": "assistant", "content": part}]}
        for i in range(16)
    ]
    rows[-1]["demonstration"][0]["content"] = [{"type": "text", "text": "x"}]  # all malformed would be refused
    make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows), algorithm="luffy", max_steps=1).train()
    assert (pd.read_parquet(tmp_path / "gate.parquet")["demonstration"] == 0).all()


@pytest.mark.parametrize("name", ["chord", "srft"])
def test_demonstrations_need_no_verdict_on_rollouts(tiny_model, tmp_path, name):
    def silent(completion_ids, **kwargs):
        return [None] * len(completion_ids)

    assert gradient_of(tiny_model, tmp_path, name, reward=silent).norm() > 0


@pytest.mark.parametrize("rollouts", [REINFORCE, DR_GRPO])
def test_the_gate_silences_the_rollouts_of_an_algorithm_of_ones_own(tiny_model, tmp_path, rollouts):
    def demonstrations_only(rate_P, step):
        return torch.zeros_like(rate_P), torch.ones_like(rate_P)

    trainer = {"algorithm": Algorithm((rollouts,), (SFT,)), "gate": demonstrations_only}
    found = step_gradient(tiny_model, tmp_path, trainer=trainer | {"rollout_func": fixed_rollouts})
    assert relative_error(found, gradient_of(tiny_model, tmp_path, "sft")) < 1e-5


@pytest.mark.parametrize("rollouts", [(PPO,), (REINFORCE,), (DR_GRPO,), (DR_GRPO, REINFORCE)])
def test_the_gates_weight_scales_the_loss_of_rollouts_once(tiny_model, tmp_path, rollouts):
    def gradient(weight):
        trainer = {
            "algorithm": Algorithm(rollouts, (SFT,)),
            # A demonstration weight of nothing, so that only the rollouts have a gradient.
            "gate": lambda rate_P, step: (torch.full_like(rate_P, weight), torch.full_like(rate_P, 1e-30)),
            "rollout_func": fixed_rollouts,
        }
        return step_gradient(tiny_model, tmp_path, trainer=trainer)

    assert relative_error(gradient(0.5), 0.5 * gradient(1.0)) < 1e-5


def test_the_off_policy_arm_is_the_same_under_rollouts_of_ones_own(tiny_model, tmp_path):
    options = {"gate_off_policy_threshold": 0.6}
    trainer = {"rollout_func": fixed_rollouts}
    mine = trainer | {"algorithm": Algorithm((DR_GRPO,), (SFT,))}
    found = step_gradient(tiny_model, tmp_path, trainer=mine, **options)
    assert relative_error(found, step_gradient(tiny_model, tmp_path, trainer=trainer, **options)) < 1e-5


def test_a_preset_by_name_and_as_an_object_are_one(tiny_model, tmp_path):
    trainer = {"rollout_func": fixed_rollouts, "algorithm": ALGORITHMS["luffy"]}
    found = step_gradient(tiny_model, tmp_path, trainer=trainer)
    assert relative_error(found, gradient_of(tiny_model, tmp_path, "luffy")) == 0


def test_an_advantage_of_ones_own_sees_whole_groups(tiny_model, tmp_path):
    mine = replace(GRPO, advantage=lambda tokens: group_advantages(tokens, scale=True))
    trainer = {"rollout_func": fixed_rollouts, "algorithm": Algorithm((mine,))}
    assert (
        relative_error(step_gradient(tiny_model, tmp_path, trainer=trainer), gradient_of(tiny_model, tmp_path, "grpo"))
        == 0
    )
    torn = replace(mine, needs_groups=False)
    with pytest.raises(ValueError, match=r"set Estimator\(needs_groups=True\)"):
        step_gradient(tiny_model, tmp_path, trainer=trainer | {"algorithm": Algorithm((torn,))})


def test_images_that_a_token_budget_would_split_are_refused(tiny_model, tmp_path):
    rows = ROWS.add_column("image", ["x"] * len(ROWS))
    with pytest.raises(ValueError, match=r"Prompts with images \(columns \['image'\]\) do not support max_tokens"):
        make_trainer(tiny_model, tmp_path, rows=rows, max_tokens_per_forward=64)


@pytest.mark.parametrize(("name", "share"), [("reinforce", 1.0), ("srft", 1.0), ("sft", 0.0), ("dr_grpo", 0.0)])
def test_signal_share_is_of_the_rows_the_algorithm_learns_from(tiny_model, tmp_path, name, share):
    """Rollouts that are all wrong teach REINFORCE and SRFT, but nothing that compares them with each other."""

    def all_wrong(completion_ids, **kwargs):
        return [0.0] * len(completion_ids)

    trainer = make_trainer(tiny_model, tmp_path, algorithm=name, reward=all_wrong, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["hpt/signal_share"] == share


def test_models_an_algorithm_cannot_serve_are_refused():
    args = HPTConfig("out", use_cpu=True, bf16=False)
    check_support(args, ALGORITHMS["hpt"], has_router_loss=True, reads_images=False)
    with pytest.raises(ValueError, match="router's auxiliary loss"):
        check_support(args, ALGORITHMS["srft"], has_router_loss=True, reads_images=False)


@pytest.mark.parametrize(
    ("algorithm", "gate_is_off", "message"),
    [
        ("srft", False, "scores only its own rollouts"),
        ("sft", False, "generates nothing, so an environment has nothing to score"),
        ("hpt", False, "There is no train_dataset, so no prompt has a demonstration"),
        ("chord", False, "There is no train_dataset, so no prompt has a demonstration"),
        ("hpt", True, None),
        ("grpo", True, None),
    ],
)
def test_environments_an_algorithm_cannot_serve_are_refused(algorithm, gate_is_off, message):
    args = HPTConfig("out", use_cpu=True, bf16=False, max_steps=1)
    rows = ROWS if algorithm in ("srft", "sft") else None

    def check():
        check_before_loading(args, ALGORITHMS[algorithm], None, rows, gate_is_off, has_environment=True)

    if message is None:
        check()
    else:
        with pytest.raises(ValueError, match=message):
            check()


@pytest.mark.parametrize(
    ("options", "trainer", "message"),
    [
        ({"algorithm": "luffy"}, {"algorithm": ALGORITHMS["srft"]}, "got an algorithm as an argument"),
        ({"algorithm": "sft"}, {"gate": lambda rate_P, step: (rate_P, rate_P)}, "uses only one of them"),
        ({"gate": "off"}, {"algorithm": Algorithm(demonstrations=(SFT,))}, "uses only one of them"),
        ({}, {"algorithm": Algorithm(demonstrations=(OFF_POLICY,))}, "has no groups"),
        ({}, {"algorithm": Algorithm(rollouts=(GRPO, DR_GRPO))}, "At most one estimator"),
        ({"gate_threshold": 0.5}, {"algorithm": ALGORITHMS["luffy"]}, "prescribes its own gate"),
        ({"algorithm": "sft", "beta": 0.1}, {}, r"would ignore \{'beta': 0.1\}"),
        ({"algorithm": "luffy", "scale_rewards": "batch"}, {}, r"would ignore \{'scale_rewards': 'batch'\}"),
    ],
)
def test_what_cannot_go_together_is_refused(tiny_model, tmp_path, options, trainer, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, trainer=trainer, **options)


def test_truncated_completions_that_are_masked_are_no_signal(tiny_model, tmp_path):
    """Of each prompt's four rollouts the first and the second, which is right, end with EOS."""

    def two_of_four_end(prompts, trainer):
        rollouts = fixed_rollouts(prompts, trainer)
        end = trainer.processing_class.eos_token_id
        completions = [[*ids, end] if row % 4 < 2 else ids for row, ids in enumerate(rollouts["completion_ids"])]
        return rollouts | {"completion_ids": completions}

    def second_is_right(completion_ids, **kwargs):
        return [float(row % 4 == 1) for row in range(len(completion_ids))]

    def signal_share(**options):
        trainer = make_trainer(
            tiny_model, tmp_path, reward=second_is_right, gate_threshold=0.0, max_steps=1,
            trainer={"rollout_func": two_of_four_end}, **options,
        )  # fmt: skip
        trainer.train()
        return trainer.state.log_history[0]["hpt/signal_share"]

    assert signal_share() == 1.0  # all four have an advantage
    assert signal_share(mask_truncated_completions=True) == 0.5
