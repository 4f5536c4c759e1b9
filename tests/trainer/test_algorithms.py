"""Every preset in the trainer: against losses written by hand, and from its own YAML."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig

from hpt_trl.algorithm.presets import ALGORITHMS, GRPO, SFT, Algorithm
from hpt_trl.commands.train import HPTScriptArguments, build_trainer
from hpt_trl.common.command_line import parse
from hpt_trl.config import HPTConfig
from hpt_trl.rewards import accuracy_reward
from tests.tiny import (
    ROWS,
    fixed_rollouts,
    gradient_of,
    make_trainer,
    parameters,
    parity_reward,
    relative_error,
    step_gradient,
    trained_parameters,
)

CONFIGS = Path(__file__).parents[2] / "configs" / "algorithms"
LONGEST = 8  # max_completion_length of `make_trainer`


class Rollouts:
    """The rows of the first step as plain log-probabilities of a fresh model, one sequence at a time."""

    def __init__(self, model_path):
        self.model = AutoModelForCausalLM.from_pretrained(model_path)
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        self.rows = [ROWS[row // 4] for row in range(16)]
        self.completions = [[5 + (7 * row + 3 * t) % 90 for t in range(2 + row % 5)] for row in range(16)]
        self.rewards = torch.tensor(parity_reward(self.completions)).view(4, 4)

    def logits(self, prompt, answer):
        ids = self.tokenizer(prompt)["input_ids"]
        return self.model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]

    def logps(self, prompt, answer):
        return self.logits(prompt, answer).log_softmax(-1)[range(len(answer)), answer]

    def entropy(self, prompt, answer):
        logps = self.logits(prompt, answer).log_softmax(-1)
        return -(logps.exp() * logps).sum(-1).mean().detach()

    def demonstration(self, prompt):
        row = ROWS[prompt]
        ids = [*self.tokenizer(row["demonstration"])["input_ids"], self.tokenizer.eos_token_id]
        return row["prompt"], ids, parity_reward([ids])[0]

    def gradient(self, rollout_loss, demonstration_loss):
        """Of the sum over 16 rollouts / (16 * longest), and what each of 4 demonstrations adds."""
        loss = sum(
            rollout_loss(self, row // 4, row, self.logps(self.rows[row]["prompt"], self.completions[row])).sum()
            for row in range(16)
        ) / (16 * LONGEST)
        for prompt in range(4):
            text, answer, _ = self.demonstration(prompt)
            loss = loss + demonstration_loss(self, prompt, self.logps(text, answer), text, answer)
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in self.model.parameters()])

    def joint(self, prompt):
        """Advantages of four rollouts and, last, the demonstration, over the mean of the five."""
        rewards = torch.cat([self.rewards[prompt], torch.tensor([self.demonstration(prompt)[2]])])
        return rewards - rewards.mean()


def luffy_rollout(run, prompt, row, logps):
    return -run.joint(prompt)[row % 4] * logps  # on-policy: the ratio is 1, its gradient that of log pi


def luffy_demonstration(run, prompt, logps, text, answer):
    # A row like any other, as in the reference: sum over tokens / longest, over the 16 rows.
    return (-run.joint(prompt)[4] * logps.exp() / (logps.exp() + 0.1)).sum() / (16 * LONGEST)


def srft_rollout(run, prompt, row, logps):
    entropy = run.entropy(run.rows[row]["prompt"], run.completions[row])
    return -(0.1 * entropy.exp() if run.rewards[prompt, row % 4] == 1 else -1.0) * logps


def srft_demonstration(run, prompt, logps, text, answer):
    likelihood = -0.5 * (-run.entropy(text, answer)).exp() * logps
    return likelihood.mean() / 4 + luffy_demonstration(run, prompt, logps, text, answer)


def chord_rollout(run, prompt, row, logps):
    # mu is 0.9 at step 0.
    return -(1 - 0.9) * (run.rewards[prompt] - run.rewards[prompt].mean())[row % 4] * logps


def chord_demonstration(run, prompt, logps, text, answer):
    probs = logps.detach().exp()
    return (-0.9 * probs * (1 - probs) * logps).mean() / 4


def chord_mu_demonstration(run, prompt, logps, text, answer):
    return (-0.9 * logps).mean() / 4


def chord_phi_rollout(run, prompt, row, logps):
    # Its share is 0.9 at every step.
    return chord_rollout(run, prompt, row, logps) * 0.9 / (1 - 0.9)


def chord_phi_demonstration(run, prompt, logps, text, answer):
    return chord_demonstration(run, prompt, logps, text, answer) * 0.1 / 0.9


def nothing(run, prompt, *rest):
    return torch.zeros(1)


def sft_demonstration(run, prompt, logps, text, answer):
    return -logps.mean() / 4


BY_HAND = {
    "luffy": (luffy_rollout, luffy_demonstration),
    "srft": (srft_rollout, srft_demonstration),
    "chord": (chord_rollout, chord_demonstration),
    "chord_mu": (chord_rollout, chord_mu_demonstration),
    "chord_phi": (chord_phi_rollout, chord_phi_demonstration),
    "sft": (nothing, sft_demonstration),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_gradient_is_that_of_the_loss_written_by_hand(tiny_model, tmp_path, name):
    expected = Rollouts(tiny_model).gradient(*BY_HAND[name])
    assert relative_error(gradient_of(tiny_model, tmp_path, name), expected) < 1e-5


@pytest.mark.parametrize(("name", "scale"), [("dr_grpo", "none"), ("grpo", "group")])
@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo"])
def test_rollouts_by_the_estimator_are_trls(tiny_model, tmp_path, name, scale, loss_type):
    found = gradient_of(tiny_model, tmp_path, name, loss_type=loss_type)
    expected = gradient_of(tiny_model, tmp_path, "hpt", gate="off", scale_rewards=scale, loss_type=loss_type)
    # TRL adds 1e-4 to the std, the reference implementation 1e-6.
    assert relative_error(found, expected) < (1e-5 if scale == "none" else 1e-3)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_gradient_does_not_depend_on_the_cut(tiny_model, tmp_path, name):
    def gradient(cuts):
        cut = {"per_device_train_batch_size": 16 // cuts, "gradient_accumulation_steps": cuts}
        return gradient_of(tiny_model, tmp_path, name, **cut)

    assert relative_error(gradient(4), gradient(1)) < 1e-5


def test_sft_generates_nothing(tiny_model, tmp_path):
    def never(prompts, trainer):
        raise AssertionError("SFT generated")

    trainer = make_trainer(tiny_model, tmp_path, algorithm="sft", trainer={"rollout_func": never})
    trainer.train()
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert history["solve_rate"].isna().all()
    assert (history["demonstration"] == 1).all()
    assert len(history) == 12


@pytest.mark.parametrize("name", ["chord", "chord_mu"])
def test_chords_mixture_is_annealed(tiny_model, tmp_path, name):
    make_trainer(tiny_model, tmp_path, algorithm=name, max_steps=8).train()
    mu = pd.read_parquet(tmp_path / "gate.parquet").groupby("step")["demonstration"].first()
    # From 0.9 to 0.05 over the first half: 0.9, 0.6875, 0.475, 0.2625, then 0.05.
    assert mu.tolist() == pytest.approx([0.9, 0.6875, 0.475, 0.2625, 0.05, 0.05, 0.05, 0.05])


def test_chord_phis_mixture_is_fixed(tiny_model, tmp_path):
    make_trainer(tiny_model, tmp_path, algorithm="chord_phi", max_steps=2).train()
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert set(history["demonstration"].round(6)) == {0.1}
    assert set(history["rollouts"].round(6)) == {0.9}


def test_an_algorithm_of_ones_own(tiny_model, tmp_path):
    mine = Algorithm(rollouts=(GRPO,), demonstrations=(SFT,))
    found = step_gradient(tiny_model, tmp_path, trainer={"algorithm": mine, "rollout_func": fixed_rollouts})
    expected = step_gradient(
        tiny_model, tmp_path, scale_rewards="group", trainer={"rollout_func": fixed_rollouts}
    )  # the same gate, TRL's loss
    assert relative_error(found, expected) < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "dpo"}, "algorithm must be one of"),
        ({"algorithm": "luffy", "gate_threshold": 0.5}, "has no gate to set"),
        ({"algorithm": "srft", "loss_type": "dapo"}, "averages rows as loss_type"),
        ({"algorithm": "chord", "max_steps": -1}, "got max_steps=-1: set it"),
        ({"algorithm": "srft", "beta": 0.1}, r"would ignore \{'beta': 0.1\}"),
        ({"algorithm": "cispo", "epsilon_high": 0.3}, r"would ignore \{'epsilon_high': 0.3\}"),
    ],
)
def test_options_an_algorithm_would_ignore_are_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, **options)


def test_algorithms_without_demonstrations_need_none(tiny_model, tmp_path):
    rows = ROWS.remove_columns("demonstration")
    make_trainer(tiny_model, tmp_path, rows=rows, algorithm="cispo", max_steps=1).train()


def test_prompts_without_a_demonstration_keep_their_own_group(tiny_model, tmp_path):
    rows = ROWS.map(lambda row: {"demonstration": ""})
    rows = Dataset.from_list([*rows.select(range(15)), ROWS[15]])  # one that the first step does not reach
    trainer = {"rollout_func": fixed_rollouts}
    found = step_gradient(tiny_model, tmp_path, rows=rows, algorithm="luffy", trainer=trainer)
    expected = step_gradient(tiny_model, tmp_path, gate="off", trainer=trainer)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dr_grpo", {}),
        ("dr_grpo", {"num_iterations": 2, "max_steps": 4}),
        ("dr_grpo", {"steps_per_generation": 8, "max_steps": 4}),
        ("dr_grpo", {"mask_truncated_completions": True}),
    ],
)
def test_off_policy_steps_by_the_estimator_are_trls(tiny_model, tmp_path, name, options):
    """Ratios leave the clip: a large learning rate, and rollouts used more than once."""
    options = {"learning_rate": 0.05} | options
    found = trained_parameters(tiny_model, tmp_path, algorithm=name, **options)
    expected = trained_parameters(tiny_model, tmp_path, gate="off", **options)
    start = parameters(make_trainer(tiny_model, tmp_path))
    assert relative_error(found - start, expected - start) < 1e-3


def test_every_preset_has_its_config():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(ALGORITHMS)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_preset_trains_the_miniature_for_20_steps(tmp_path, name):
    flags = ["--config", str(CONFIGS / f"{name}.yaml"), "--output_dir", str(tmp_path), "--disable_tqdm", "true"]
    trainer = build_trainer(*parse((HPTScriptArguments, HPTConfig, ModelConfig), flags, "test"))
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(log) == 20
    assert all(math.isfinite(float(entry[key])) for entry in log for key in ("loss", "grad_norm"))
    assert any(float(entry["grad_norm"]) > 0 for entry in log)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert json.dumps(log)


def luffy_by_hand(scale):
    """LUFFY's losses with every advantage of a joint group divided by `scale` of its five advantages."""

    def rollout(run, prompt, row, logps):
        return luffy_rollout(run, prompt, row, logps) / scale(run.joint(prompt))

    def demonstration(run, prompt, logps, text, answer):
        return luffy_demonstration(run, prompt, logps, text, answer) / scale(run.joint(prompt))

    return rollout, demonstration


@pytest.mark.parametrize(
    ("scale_rewards", "scale"), [("none", lambda joint: 1.0), ("group", lambda joint: joint.std() + 1e-6)]
)
def test_joint_groups_are_scaled_as_scale_rewards_says(tiny_model, tmp_path, scale_rewards, scale):
    expected = Rollouts(tiny_model).gradient(*luffy_by_hand(scale))
    assert relative_error(gradient_of(tiny_model, tmp_path, "luffy", scale_rewards=scale_rewards), expected) < 1e-5


@pytest.mark.parametrize("options", [
    {"algorithm": "grpo"}, {"algorithm": "reinforce"}, {"algorithm": "srft"}, {"algorithm": "hpt", "gate": "linear"},
])  # fmt: skip
def test_outputs_of_tools_are_not_trained_on(tiny_model, tmp_path, options):
    """Three tokens of another's at the end of a completion change no gradient: dr_grpo divides by a constant."""

    def with_outputs(prompts, trainer):
        rollouts = fixed_rollouts(prompts, trainer)
        own = rollouts["completion_ids"]
        completions = [[*ids, 90, 91, 92] for ids in own]
        env_mask = [[1] * len(ids) + [0] * 3 for ids in own]
        return rollouts | {"completion_ids": completions, "env_mask": env_mask}

    def by_own_tokens(completion_ids, **kwargs):
        return [float(sum(ids[:1]) % 2) for ids in completion_ids]

    def gradient(rollout_func):
        trainer = {"rollout_func": rollout_func}
        return step_gradient(
            tiny_model, tmp_path, reward=by_own_tokens, max_completion_length=9, trainer=trainer, **options
        )

    assert relative_error(gradient(with_outputs), gradient(fixed_rollouts)) < 1e-5


def test_what_rewards_log_is_of_rollouts_not_of_demonstrations(tiny_model, tmp_path):
    rows = ROWS.map(lambda row: {"demonstration": "\\boxed{" + row["solution"] + "}"})
    options = {"rows": rows, "reward": accuracy_reward, "log_completions": True, "max_steps": 2}
    trainer = make_trainer(tiny_model, tmp_path, algorithm="luffy", trainer={"rollout_func": fixed_rollouts}, **options)
    trainer.train()
    for entry in trainer.state.log_history[:2]:
        # No rollout has a box, and every demonstration is right.
        assert entry["verdicts/unparseable_answer"] == 1
        assert entry["verdicts/right"] == 0
    tables = [pd.read_parquet(path) for path in sorted((tmp_path / "completions").glob("*.parquet"))]
    assert len(tables) == 2
    for table in tables:
        assert (table["verdict"] == "unparseable answer").all()
    assert (pd.read_parquet(tmp_path / "gate.parquet")["demonstration"] == 1).all()
