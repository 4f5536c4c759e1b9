"""Tiny random models of the architecture families that GRPOTrainer trains, and the gradient that a loop gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from hpt_trl.miniature.build import build_tokenizer
from tests.tiny import ROWS

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    "topk_group": 1,
}  # fmt: skip
_LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
_MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}

# The config class of each family, and what it needs to be tiny. Scales and soft caps are set so that they show.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gemma": ("GemmaConfig", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3Config", {}),
    "olmo2": ("Olmo2Config", {}),
    "cohere": ("CohereConfig", {"logit_scale": 0.5}),
    "cohere2": ("Cohere2Config", {"logit_scale": 0.5}),
    "glm4": ("Glm4Config", {"head_dim": 8}),
    "granite": ("GraniteConfig", {"logits_scaling": 2.0}),
    "smollm3": ("SmolLM3Config", {}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}),
    "opt": ("OPTConfig", {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.0}),
    "bloom": ("BloomConfig", {"n_head": 2, "n_layer": 2}),
    "falcon_h1": ("FalconH1Config", {"mamba_n_groups": 1, "lm_head_multiplier": 0.5, **_MAMBA}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2MoeConfig", {"shared_expert_intermediate_size": 16, **_EXPERTS}),
    "qwen3_moe": ("Qwen3MoeConfig", {"head_dim": 8, **_EXPERTS}),
    "olmoe": ("OlmoeConfig", {"num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": ("GptOssConfig", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}),
    "deepseek_v3": ("DeepseekV3Config", {"n_group": 2, **_ROUTED, **_LATENT}),
    "glm4_moe": ("Glm4MoeConfig", {"n_group": 1, "n_shared_experts": 1, "head_dim": 8, **_ROUTED}),
}

# Dropout would make two forward passes differ. The router's loss acts on rollouts, whatever the gate says.
EXACT = {"disable_dropout": True, "router_aux_loss_coef": 0.0}


def build_family(family: str, folder: Path) -> str:
    """Save a seeded random model of a family, with the tokenizer of `tests.tiny`.

    Args:
        family: a key of `FAMILIES`.
        folder: where to.
    """
    tokenizer = build_tokenizer()
    name, own = FAMILIES[family]
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(sizes | own))
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def trained_gradient(model: torch.nn.Module) -> torch.Tensor:
    """Gradient of the trained parameters as one vector."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten() for parameter in trained
    ])  # fmt: skip


class LastGradient(TrainerCallback):
    """Keeps the gradient of the trained parameters that the optimizer is about to use."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = trained_gradient(model)


def loop_gradient(model: torch.nn.Module, sequences: Sequence[tuple[list[int], list[int]]], **inputs) -> torch.Tensor:
    """Gradient of the mean over answers of their cross-entropy per token, one sequence at a time.

    Args:
        model: a causal language model, with or without adapters.
        sequences: ids of each prompt and of its answer.
        inputs: further arguments of the model's forward pass, by name a list with one entry per sequence.
    """
    losses = []
    for index, (prompt, answer) in enumerate(sequences):
        own = {name: values[index] for name, values in inputs.items()}
        logits = model(input_ids=torch.tensor([prompt + answer]), **own).logits
        # Counted from the end: virtual tokens of an adapter come before the sequence.
        losses.append(cross_entropy(logits[0, -len(answer) - 1 : -1], torch.tensor(answer)))
    torch.stack(losses).mean().backward()
    return trained_gradient(model)


def demonstrated_sequences(folder: str, count: int = 4) -> list[tuple[list[int], list[int]]]:
    """Ids of the first prompts of `ROWS` and of their demonstrations, each with its end."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["demonstration"])["input_ids"], tokenizer.eos_token_id])
        for row in ROWS.select(range(count))
    ]
