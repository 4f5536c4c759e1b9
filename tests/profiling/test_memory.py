"""The estimated GPU memory: parts written out by hand, and the sum compared with a step that was measured on a CPU."""

import re
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from trl import ModelConfig
from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from hpt_trl.miniature import MODEL_PATH
from hpt_trl.profiling.memory import (
    HEAD_TILE,
    RECIPES,
    SHAPES,
    Parameters,
    cache_bytes,
    count_parameters,
    estimate,
    forward_bytes,
    table,
    training_bytes,
    weight_bytes,
)
from hpt_trl.profiling.workload import Group, StepSpec, measure_step
from hpt_trl.trainer.hpt import HPTTrainer

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_parts_by_hand():
    # 100 parameters, of which 80 in 4.127 bits: 20 * 2 + 80 * 4.127 / 8; an adapter of 10 adds 20 bytes.
    count = Parameters(base=100, quantized=80, adapter=10)
    assert weight_bytes(count, in_4_bits=True) == pytest.approx(20 * 2 + 41.27 + 20)
    assert weight_bytes(count, in_4_bits=False) == 220
    # Gradient and two moments in 2 bytes each; under ZeRO-3, 2 + 12 bytes on eight GPUs.
    assert training_bytes(10, shards=1) == 60
    assert training_bytes(80, shards=8) == 140
    # 28 layers, keys and values of 2 heads of 128: 28,672 bytes per token.
    assert cache_bytes(SHAPES["1.5b"], 1) == 28 * 2 * 2 * 128 * 2 == 28_672


def test_parameters_are_those_of_the_published_models():
    # Source: model cards of Qwen2.5 (1.54B and 7.61B parameters).
    assert count_parameters(SHAPES["1.5b"], ModelConfig()).base == pytest.approx(1.54e9, rel=0.005)
    counted = count_parameters(SHAPES["7b"], ModelConfig(use_peft=True, lora_r=16, lora_target_modules=["all-linear"]))
    assert counted.base == pytest.approx(7.61e9, rel=0.005)
    # Rank 16 times (inputs + outputs) of q, k, v, o, gate, up and down in each of 28 layers.
    sizes = [(3584, 3584), (3584, 512), (3584, 512), (3584, 3584), (3584, 18944), (3584, 18944), (18944, 3584)]
    assert counted.adapter == 28 * 16 * sum(map(sum, sizes))
    assert counted.quantized == 28 * sum(inputs * outputs for inputs, outputs in sizes)


def test_the_tile_is_that_of_trl():
    assert HEAD_TILE == (TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE)


@pytest.mark.parametrize(("layers", "intermediate"), [(6, 512), (2, 16384)], ids=["head", "MLP"])
def test_a_measured_step_needs_what_was_estimated(tmp_path, monkeypatch, layers, intermediate):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    shape = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(shape)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    # The largest of the estimate's two peaks is the head's or the layer's. There are no AdamW moments yet.
    spec = StepSpec([Group(32, [96] * 8, [1.0] + [0.0] * 7, 8)], 8, {"gradient_checkpointing": True})
    cost = measure_step(HPTTrainer, str(tmp_path), spec, profile_memory=True)
    estimated = forward_bytes(shape, cost.tokens, item=4, is_head_trained=True) + 4 * model.num_parameters()
    assert cost.tokens == 8 * (32 + 96)
    assert cost.peak_bytes == pytest.approx(estimated, rel=0.15)


def test_every_recipe_leaves_a_tenth_of_its_gpu():
    assert len(RECIPES) == 6
    for recipe in RECIPES:
        assert estimate(recipe).total < 0.9e9 * recipe.gpu_gigabytes, recipe


def test_the_table_is_that_of_the_readme():
    printed = table()
    assert printed in README
    assert len(re.findall(r"^\| `", printed, re.MULTILINE)) == len(RECIPES)
