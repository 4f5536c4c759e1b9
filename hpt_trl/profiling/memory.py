"""Estimates the GPU memory of the recipes: `python -m hpt_trl.profiling.memory` prints the README's table.

Four things share a GPU: weights, what AdamW needs to train them, one forward and backward pass, and generation.
Workspace, fragmentation and the CUDA context come on top: leave 10% free.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen2Config
from trl import ModelConfig, ScriptArguments, get_peft_config

from hpt_trl.common.command_line import parse
from hpt_trl.common.configs import PREFIX
from hpt_trl.config import HPTConfig

GIGABYTE = 1e9
_PROMPT_TOKENS = 1024
_BF16, _FP32 = 2, 4
# What TRL's fused head computes at a time: tokens, entries of the vocabulary.
HEAD_TILE = (4096, 32768)


def _qwen(hidden: int, intermediate: int, heads: int, key_value_heads: int, vocabulary: int, tied: bool) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=28, num_attention_heads=heads,
        num_key_value_heads=key_value_heads, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip


# Source: config.json of Qwen/Qwen2.5-Math-1.5B and Qwen/Qwen2.5-Math-7B.
SHAPES = {"1.5b": _qwen(1536, 8960, 12, 2, 151936, True), "7b": _qwen(3584, 18944, 28, 4, 152064, False)}
"""Model configurations by size."""


@dataclass(frozen=True)
class Recipe:
    """A config of the package, the size of its model, and the GPUs that it is meant for."""

    name: str
    size: str
    gpus: int
    gpu_gigabytes: int


RECIPES = (
    Recipe("lora/qwen2.5_math_1.5b_qlora", "1.5b", 1, 24),
    Recipe("lora/qwen2.5_math_1.5b_lora", "1.5b", 1, 24),
    Recipe("lora/qwen2.5_math_7b_qlora", "7b", 1, 24),
    Recipe("lora/qwen2.5_math_7b_lora", "7b", 1, 24),
    Recipe("paper/qwen2.5_math_1.5b/hpt", "1.5b", 8, 80),
    Recipe("paper/qwen2.5_math_7b/hpt", "7b", 8, 80),
)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Args:
        base: of the model.
        quantized: those that 4-bit loading quantizes: linear layers, without the output head.
        adapter: of the adapter; 0 without one.
    """

    base: int
    quantized: int
    adapter: int


def count_parameters(shape: PretrainedConfig, model_args: ModelConfig) -> Parameters:
    """Count parameters on a model without storage (the meta device)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
        linear = [module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear)]
        base, quantized = model.num_parameters(), sum(module.weight.numel() for module in linear)
        adapter = get_peft_config(model_args)
        if adapter is None:
            return Parameters(base, quantized, 0)
        trained, _ = get_peft_model(model, adapter).get_nb_trainable_parameters()
        return Parameters(base, quantized, trained)


def weight_bytes(count: Parameters, in_4_bits: bool) -> float:
    """Frozen or trained weights in bfloat16, or the linear layers in 4 bits.

    With nested quantization, constants add 0.127 bits per parameter. Source: arXiv 2305.14314, section 3.
    """
    quantized = count.quantized if in_4_bits else 0
    return _BF16 * (count.base - quantized + count.adapter) + (4 + 0.127) / 8 * quantized


def training_bytes(trained: int, shards: int) -> float:
    """Gradients and AdamW's two moments of the trained parameters, in their dtype, on one of `shards` GPUs.

    Sharded by ZeRO-3, a float32 copy of the parameters comes with the moments in float32: 2 bytes of gradient and 12 of
    optimizer state per parameter. Source: arXiv 1910.02054, section 3.1.
    """
    return trained * 3 * _BF16 if shards == 1 else trained * (_BF16 + 3 * _FP32) / shards


def forward_bytes(shape: PretrainedConfig, tokens: int, item: int = _BF16, is_head_trained: bool = False) -> float:
    """One forward and backward pass with gradient checkpointing, without the gradients of the parameters.

    It keeps the input of every layer and, one after the other, a tile of logits (TRL's fused head computes 4,096 tokens
    by 32,768 tokens of the vocabulary at a time, and float32 gradients of what it was given) and one layer that is
    recomputed: per token about 12 tensors as wide as the hidden state, keys and values, and 6 as wide as the MLP.
    Attention is computed in blocks, so nothing grows with the square of the length. Sources: arXiv 2205.05198, section
    5, for checkpointing; `trl.kernels.chunked_logprob` for the head; the numbers 12 and 6 were measured.

    Args:
        shape: configuration of the model.
        tokens: tokens of the pass, padding included.
        item: bytes of an activation.
        is_head_trained: whether the output head has a gradient.
    """
    hidden = shape.hidden_size
    head = hidden // shape.num_attention_heads
    inputs = item * tokens * shape.num_hidden_layers * hidden
    tile = item * min(tokens, HEAD_TILE[0]) * HEAD_TILE[1]
    gradients = _FP32 * hidden * (tokens + shape.vocab_size * is_head_trained)
    keys_and_values = 2 * shape.num_key_value_heads * head
    layer = item * tokens * (12 * hidden + keys_and_values + 6 * shape.intermediate_size)
    return inputs + max(tile + gradients, layer)


def cache_bytes(shape: PretrainedConfig, tokens: int, item: int = _BF16) -> float:
    """Keys and values of the tokens that are generated together, without vLLM."""
    head = shape.hidden_size // shape.num_attention_heads
    return item * tokens * shape.num_hidden_layers * 2 * shape.num_key_value_heads * head


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU. Without vLLM, generation and the forward pass do not take place at the same time."""

    weights: float
    training: float
    forward: float
    generation: float
    is_vllm: bool

    @property
    def total(self) -> float:
        """Peak of one step."""
        step = self.forward + self.generation if self.is_vllm else max(self.forward, self.generation)
        return self.weights + self.training + step


def estimate(recipe: Recipe) -> Estimate:
    """Estimate one recipe from its config."""
    flags = ["--config", f"{PREFIX}{recipe.name}", "--use_cpu", "true"]
    _, args, model_args = parse((ScriptArguments, HPTConfig, ModelConfig), flags, "memory")
    shape = SHAPES[recipe.size]
    count = count_parameters(shape, model_args)
    row = _PROMPT_TOKENS + args.max_completion_length
    # A row longer than the limit is computed alone.
    limit = args.max_tokens_per_forward
    tokens = max(limit, row) if limit else args.per_device_train_batch_size * row
    generation = cache_bytes(shape, args.per_device_train_batch_size * args.steps_per_generation * row)
    if args.use_vllm:
        generation = args.vllm_gpu_memory_utilization * recipe.gpu_gigabytes * GIGABYTE
    trained = count.adapter or count.base
    return Estimate(
        weights=weight_bytes(count, model_args.load_in_4bit) / recipe.gpus,
        training=training_bytes(trained, recipe.gpus),
        forward=forward_bytes(shape, tokens, is_head_trained=not count.adapter),
        generation=generation,
        is_vllm=args.use_vllm,
    )


def table(recipes: Sequence[Recipe] = RECIPES) -> str:
    """The estimates in GB as a Markdown table."""
    lines = [
        "| recipe | GPUs | generates with | weights | gradients, AdamW | forward and backward | generation "
        "| total per GPU |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for recipe in recipes:
        parts = estimate(recipe)
        values = [parts.weights, parts.training, parts.forward, parts.generation, parts.total]
        gpus = f"{recipe.gpus} x {recipe.gpu_gigabytes} GB"
        engine = "vLLM" if parts.is_vllm else "transformers"
        cells = [f"`{recipe.name}`", gpus, engine, *(f"{value / GIGABYTE:.1f}" for value in values)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
