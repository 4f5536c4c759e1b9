"""With the gate shut HPTTrainer is GRPOTrainer, to the bit; with silent rows dropped, to rounding."""

import pytest
import torch
from trl import GRPOTrainer

from hpt_trl import HPTConfig
from tests.tiny import ROWS, make_trainer, relative_error, rollouts_gate, step_gradient, trained_parameters

LOSS_TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]
VARIANTS = {
    "plain": {},
    "kl": {"beta": 0.1},
    "regenerates_less": {"steps_per_generation": 8},
    "accumulates_over_generations": {"steps_per_generation": 2},
    "two_epochs": {"num_iterations": 2},
    "entropy_bonus": {"entropy_coef": 0.01},
    "temperature": {"temperature": 0.7},
    "bf16": {"bf16": True},
}


def check_equal(tiny_model, tmp_path, **options):
    grpo = trained_parameters(tiny_model, tmp_path, hpt=False, **options)
    shut = {"trainer": {"gate": rollouts_gate}, "skip_zero_signal_rollouts": False}
    as_gate = trained_parameters(tiny_model, tmp_path, **shut, **options)
    by_name = trained_parameters(tiny_model, tmp_path, gate="off", **options)
    start = make_trainer(tiny_model, tmp_path, hpt=False, **options)
    assert torch.equal(as_gate, grpo)
    assert torch.equal(by_name, grpo)
    assert not torch.equal(torch.cat([p.detach().flatten() for p in start.model.parameters()]), grpo)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_gate_shut_is_grpo_for_each_loss_type(tiny_model, tmp_path, loss_type):
    check_equal(tiny_model, tmp_path, loss_type=loss_type)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gate_shut_is_grpo_with_each_option(tiny_model, tmp_path, variant):
    check_equal(tiny_model, tmp_path, **VARIANTS[variant])


@pytest.mark.parametrize("bf16", [False, True])
def test_gate_shut_is_grpo_with_an_adapter(tiny_model, tmp_path, bf16):
    from peft import LoraConfig

    def run(**options):
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        trainer = options.pop("trainer", {}) | {"peft_config": config}
        return trained_parameters(tiny_model, tmp_path, bf16=bf16, trainer=trainer, **options)

    grpo = run(hpt=False)
    assert torch.equal(run(gate="off"), grpo)
    assert torch.equal(run(trainer={"gate": rollouts_gate}, skip_zero_signal_rollouts=False), grpo)


def test_prompts_without_demonstrations_are_grpo(tiny_model, tmp_path):
    # One demonstration, which 3 steps of 4 prompts never reach.
    rows = ROWS.map(lambda row, index: {"demonstration": "x" if index == 15 else ""}, with_indices=True)
    hpt = trained_parameters(tiny_model, tmp_path, rows=rows, gate_threshold=1.0, skip_zero_signal_rollouts=False)
    assert torch.equal(hpt, trained_parameters(tiny_model, tmp_path, hpt=False))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_rows_are_skipped_where_the_gate_chooses_no_demonstration(tiny_model, tmp_path, loss_type):
    rows = ROWS.map(lambda row, index: {"demonstration": "x" if index == 15 else ""}, with_indices=True)
    options = {"rows": rows, "loss_type": loss_type}
    forwards = []
    upstream = GRPOTrainer._compute_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            GRPOTrainer,
            "_compute_loss",
            lambda self, model, inputs: (forwards.append(len(inputs["completion_ids"])), upstream(self, model, inputs))[
                1
            ],
        )
        skipped = step_gradient(tiny_model, tmp_path, **options)
    assert sum(forwards) < 16
    assert relative_error(skipped, step_gradient(tiny_model, tmp_path, hpt=False, loss_type=loss_type)) < 1e-5


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_dropping_silent_rows_keeps_the_gradient(tiny_model, tmp_path, loss_type):
    options = {"loss_type": loss_type, "gate_threshold": 0.25}
    dropped = step_gradient(tiny_model, tmp_path, **options)
    kept = step_gradient(tiny_model, tmp_path, skip_zero_signal_rollouts=False, **options)
    assert relative_error(dropped, kept) < 1e-5


@pytest.mark.parametrize("option", [{"entropy_coef": 0.5}, {"beta": 0.5}, {"top_entropy_quantile": 0.5}])
def test_rows_that_act_without_an_advantage_are_kept(tiny_model, tmp_path, option):
    options = option | {"gate_threshold": 0.25, "num_iterations": 2, "steps_per_generation": 4}
    dropped = step_gradient(tiny_model, tmp_path, **options)
    kept = step_gradient(tiny_model, tmp_path, skip_zero_signal_rollouts=False, **options)
    assert relative_error(dropped, kept) < 1e-5


def test_fewer_rows_are_computed_where_the_gate_acts(tiny_model, tmp_path, monkeypatch):
    rows = []
    upstream = GRPOTrainer._compute_loss
    monkeypatch.setattr(
        GRPOTrainer, "_compute_loss", lambda self, model, inputs: (
            rows.append(inputs["completion_ids"].size(0)), upstream(self, model, inputs)
        )[1]
    )  # fmt: skip
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25, max_steps=1)
    trainer.train()
    # 16 rows were generated; those of demonstrated prompts and of prompts solved always are not computed.
    shares = trainer.state.log_history[0]
    assert sum(rows) == round(16 * shares["hpt/signal_share"]) < 16
    rows.clear()
    make_trainer(tiny_model, tmp_path, gate_threshold=0.25, max_steps=1, beta=0.1).train()
    assert sum(rows) == 16  # KL acts on every row


def test_outputs_are_refused_as_trl_refuses_them(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    with pytest.raises(ValueError, match="does not support returning outputs"):
        trainer.compute_loss(trainer.model, {}, return_outputs=True)


def test_defaults_are_the_papers_recipe():
    args = HPTConfig("out", use_cpu=True, bf16=False)
    assert (args.num_generations, args.temperature, args.beta) == (8, 1.0, 0.0)
    assert (args.loss_type, args.scale_rewards) == ("dr_grpo", "none")
    assert (args.learning_rate, args.lr_scheduler_type.value) == (5e-6, "constant")
