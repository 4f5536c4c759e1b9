"""Every architecture family that GRPOTrainer trains: bitwise GRPO with the gate shut, and exact demonstrations."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny import (
    ROWS,
    fixed_rollouts,
    make_trainer,
    relative_error,
    rollouts_gate,
    step_gradient,
    trained_parameters,
)
from tests.trainer.model_families import EXACT, FAMILIES, build_family, demonstrated_sequences, loop_gradient

# One of each kind for the suite that runs all the time: soft caps, absolute positions, experts.
QUICK = ("gemma2", "gpt2", "gpt_oss")
ALL = [family if family in QUICK else pytest.param(family, marks=pytest.mark.distributed) for family in FAMILIES]


@pytest.fixture(scope="module", params=ALL)
def family(request, tmp_path_factory):
    return build_family(request.param, tmp_path_factory.mktemp("families") / request.param)


def test_the_gradient_of_demonstrations_is_cross_entropy(family, tmp_path):
    found = step_gradient(family, tmp_path, gate_threshold=1.0, **EXACT)
    model = AutoModelForCausalLM.from_pretrained(family, dtype=torch.float32)
    assert relative_error(found, loop_gradient(model, demonstrated_sequences(family))) < 2e-6


def test_gate_shut_is_grpo(family, tmp_path):
    options = {"max_steps": 1, "disable_dropout": True}
    grpo = trained_parameters(family, tmp_path, hpt=False, **options)
    shut = {"trainer": {"gate": rollouts_gate}, "skip_zero_signal_rollouts": False}
    assert torch.equal(trained_parameters(family, tmp_path, **shut, **options), grpo)


def test_half_a_gate_learns_demonstrations(family, tmp_path):
    def half(solve_rate_P, step):
        return torch.full_like(solve_rate_P, 0.5), torch.full_like(solve_rate_P, 0.5)

    options = {"max_steps": 6, "rows": ROWS.select(range(4)), "optim": "adamw_torch", **EXACT}
    trainer = make_trainer(family, tmp_path, trainer={"gate": half, "rollout_func": fixed_rollouts}, **options)
    trainer.train()
    nll = [entry["demonstrations/nll"] for entry in trainer.state.log_history if "demonstrations/nll" in entry]
    assert nll[-1] < 0.9 * nll[0]
