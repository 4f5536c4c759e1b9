"""Adapters, four bits, generation with cast weights, and the limit on memory."""

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from hpt_trl.profiling.ratios import Bench, memory_under_budget
from tests.gpu.equality import free_memory
from tests.gpu.setting import Finding, Setting, at_most
from tests.tiny import make_trainer, parity_reward

ADAPTERS = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")


def adapters(setting: Setting, name: str, **trainer: Any) -> Iterator[Finding]:
    """Two steps of adapters: they move, and nothing else does."""
    free_memory()
    options = {"bf16": True, "max_steps": 2, "gate_threshold": 1.0} | setting.options
    run = make_trainer(
        setting.model("0.5b"), setting.run_folder(name), trainer={"peft_config": ADAPTERS} | trainer,
        model_init_kwargs={"dtype": "bfloat16"}, **options,
    )  # fmt: skip
    before = {name: weight.detach().cpu().clone() for name, weight in run.model.named_parameters()}
    run.train()
    moved = {
        name for name, weight in run.model.named_parameters() if not torch.equal(weight.detach().cpu(), before[name])
    }
    expected = {key for key in before if "lora_" in key}
    loss = run.state.log_history[0]["loss"]
    passed = bool(moved) and moved <= expected and any("lora_B" in key for key in moved) and loss == loss
    yield Finding(f"{name} trains adapters only", f"{len(moved)} of {len(before)}", f"<= {len(expected)}", passed)


def lora(setting: Setting) -> Iterator[Finding]:
    """LoRA on weights in bfloat16."""
    yield from adapters(setting, "LoRA")


def qlora(setting: Setting) -> Iterator[Finding]:
    """LoRA on weights in four bits."""
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    yield from adapters(setting, "QLoRA", quantization_config=quantization)


def cast_generation(setting: Setting) -> Iterator[Finding]:
    """Under bf16 autocast, weights that are cast once per generation give the tokens of weights cast every time."""

    def sampled(hpt: bool) -> list[list[int]]:
        free_memory()
        tokens: list[list[int]] = []

        def reward(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
            tokens.extend(completion_ids)
            return parity_reward(completion_ids)

        gate = {"gate": "off"} if hpt else {}
        options = {"bf16": True, "max_steps": 1, "max_completion_length": 32} | setting.options | gate
        make_trainer(setting.model("0.5b"), setting.run_folder("generation"), hpt=hpt, reward=reward, **options).train()
        return tokens

    grpo, hpt = sampled(False), sampled(True)
    equal = sum(row == other for row, other in zip(grpo, hpt))
    yield Finding("rollouts sampled with cast weights are GRPOTrainer's", str(equal), f"{len(grpo)}", grpo == hpt)


def memory_budget(setting: Setting) -> Iterator[Finding]:
    """64 rows per micro-batch take the memory of 8 under `max_tokens_per_forward`."""
    free_memory()
    options = {"bf16": True} if setting.device == "cuda" else {}
    bench = Bench(setting.model("0.5b"), "0.5b", setting.sizes.length, 1, "float32", options)
    yield at_most("peak memory of 64 rows / of 8, same max_tokens_per_forward", memory_under_budget(bench), 1.05)


CHECKS = (lora, qlora, cast_generation, memory_budget)
