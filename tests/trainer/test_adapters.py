"""Every kind of adapter that GRPOTrainer trains: the gradient of a demonstration is a cross-entropy loop's."""

from pathlib import Path

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM

from tests.tiny import make_trainer, relative_error, rollouts_gate
from tests.trainer.model_families import EXACT, LastGradient, build_family, demonstrated_sequences, loop_gradient

VIRTUAL = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
ON_LAYERS = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}
ADAPTERS = {
    "lora": LoraConfig(**ON_LAYERS),
    "dora": LoraConfig(use_dora=True, **ON_LAYERS),
    "modules_to_save": LoraConfig(modules_to_save=["lm_head", "embed_tokens"], **ON_LAYERS),
    "trained_tokens": LoraConfig(trainable_token_indices=[5, 6, 7], **ON_LAYERS),
    "ia3": IA3Config(task_type="CAUSAL_LM"),
    "vera": VeraConfig(r=4, target_modules="all-linear"),
    "prompt_tuning": PromptTuningConfig(**VIRTUAL),
    "p_tuning": PromptEncoderConfig(encoder_hidden_size=16, **VIRTUAL),
    "prefix_tuning": PrefixTuningConfig(**VIRTUAL),
}
# The others reach the trainer as one of these does: on layers as "lora", virtual tokens as "prompt_tuning".
ALIKE = ("dora", "vera", "p_tuning")
ALL = [pytest.param(each, marks=pytest.mark.distributed) if each in ALIKE else each for each in ADAPTERS]
# transformers keeps the weights of all experts in one parameter, which is no linear layer.
ON_EXPERTS = LoraConfig(
    r=2,
    target_modules=["q_proj", "v_proj"],
    target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    init_lora_weights=False,
)


def adapted_trainer(model: str, folder: Path, adapter, **options):
    """A trainer of a model with a new adapter, the same each time."""
    torch.manual_seed(0)
    return make_trainer(model, folder, trainer=options.pop("trainer", {}) | {"peft_config": adapter}, **options)


def check_demonstration_gradient(model: str, folder: Path, adapter) -> None:
    trainer = adapted_trainer(model, folder, adapter, gate_threshold=1.0, max_steps=1, max_grad_norm=0.0, **EXACT)
    own = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter)
    own.load_state_dict(trainer.model.state_dict())
    kept = LastGradient()
    trainer.add_callback(kept)
    trainer.train()
    assert trainer.state.log_history[0]["hpt/demonstration_share"] == 1
    expected = loop_gradient(own, demonstrated_sequences(model))
    assert expected.norm() > 0
    assert relative_error(kept.gradient, expected) < 1e-5


@pytest.mark.parametrize("adapter", ALL)
def test_the_gradient_of_demonstrations_is_cross_entropy(tiny_model, tmp_path, adapter):
    check_demonstration_gradient(tiny_model, tmp_path, ADAPTERS[adapter])


@pytest.mark.parametrize("family", ["qwen3_moe", pytest.param("mixtral", marks=pytest.mark.distributed)])
def test_adapters_on_experts(tmp_path, family):
    check_demonstration_gradient(build_family(family, tmp_path / "model"), tmp_path, ON_EXPERTS)


@pytest.mark.parametrize("adapter", ["prompt_tuning", "dora"])
def test_gate_shut_is_grpo(tiny_model, tmp_path, adapter):
    def trained(**options):
        trainer = adapted_trainer(tiny_model, tmp_path, ADAPTERS[adapter], max_steps=1, **options)
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        after = trainer.model.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
        return after

    grpo = trained(hpt=False)
    found = trained(trainer={"gate": rollouts_gate}, skip_zero_signal_rollouts=False)
    assert all(torch.equal(found[name], grpo[name]) for name in grpo)


def test_the_card_names_virtual_tokens(tiny_model, tmp_path):
    trainer = adapted_trainer(tiny_model, tmp_path, ADAPTERS["prompt_tuning"], gate_threshold=1.0)
    trainer.create_model_card()
    assert "PROMPT_TUNING, virtual tokens 4" in (tmp_path / "README.md").read_text()
