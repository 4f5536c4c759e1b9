"""A tiny random model, data for it, and runs of GRPOTrainer and HPTTrainer that differ in nothing but the name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, Qwen2Config, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from hpt_trl import HPTConfig, HPTTrainer
from hpt_trl.miniature.build import build_tokenizer

CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

ROWS = Dataset.from_list(
    [
        {"prompt": f"{i}+{i}" + "?" * (1 + i % 3), "demonstration": f"so {2 * i}" + "!" * (i % 4), "solution": str(i)}
        for i in range(16)
    ]
)


def build_tiny_model(folder: Path) -> str:
    """Save a seeded random model whose log-probabilities are far from uniform, so that errors show."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = CHATML
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def parity_reward(completion_ids, **kwargs) -> list[float]:
    """A verdict that depends on the rollout in a way no gradient could know: its token sum modulo 3."""
    return [float(sum(ids) % 3 == 0) for ids in completion_ids]


def fixed_rollouts(prompts: list, trainer: Any) -> dict[str, list]:
    """The same rollouts whatever the number of processes: row r of the whole batch is a function of r."""
    first = trainer.accelerator.process_index * len(prompts)
    prompt_ids = trainer.processing_class(text=prompts)["input_ids"]
    completions = [
        [5 + (7 * row + 3 * t) % 90 for t in range(2 + row % 5)] for row in range(first, first + len(prompts))
    ]
    return {"prompt_ids": prompt_ids, "completion_ids": completions, "logprobs": None}


def scored_rollouts(prompts: list, trainer: Any) -> dict[str, list]:
    """The same, with log-probabilities of an engine that sampled with slightly other weights, and a further column."""
    # From here on TRL takes its path for rollouts of vLLM, whose engine is not needed for these.
    trainer.use_vllm = True
    rollouts = fixed_rollouts(prompts, trainer)
    ids = [torch.tensor(p + c) for p, c in zip(rollouts["prompt_ids"], rollouts["completion_ids"])]
    with torch.no_grad():
        logps = [trainer.model(row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None])[:, 0] for row in ids]
    completions = rollouts["completion_ids"]
    return rollouts | {
        # The further a token, the larger the difference: 0.05, 0.1, ...
        "logprobs": [(p[-len(c) :] - 0.05 * torch.arange(1, len(c) + 1)).tolist() for p, c in zip(logps, completions)],
        "hint": [sum(c) for c in completions],
    }


def rollouts_gate(solve_rate_P, step):
    """Rollouts only, but as a gate of the user's, which the trainer cannot know to be shut."""
    return torch.ones_like(solve_rate_P), torch.zeros_like(solve_rate_P)


# What HPTConfig changes, so that a GRPOConfig can be given the same.
RECIPE = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "loss_type": "dr_grpo", "scale_rewards": "none"}


DEFAULTS = {
    "use_cpu": True,
    "bf16": False,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_generations": 4,
    "max_completion_length": 8,
    "shuffle_dataset": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 3,
}


def make_trainer(
    model: str,
    folder: Path,
    hpt: bool = True,
    rows: Dataset = ROWS,
    reward=parity_reward,
    trainer=None,
    before_trainer: Callable[[], None] | None = None,
    **options: Any,
):
    """A trainer of 4 prompts x 4 rollouts a step in 4 micro-batches.

    `trainer` holds arguments of its `__init__`, `before_trainer` is called between the config and the trainer.
    """
    config, kind = (HPTConfig, HPTTrainer) if hpt else (GRPOConfig, GRPOTrainer)
    if hpt:
        # Demonstrations as heavy as all rollouts of their prompt, so that errors in their loss show.
        options = {"sft_weight": 1.0} | options
    args = config(**(DEFAULTS | RECIPE | {"output_dir": str(folder)} | options))
    if before_trainer:
        before_trainer()
    return kind(model, reward, args, rows, **(trainer or {}))


def parameters(trainer) -> torch.Tensor:
    """All parameters as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def trained_parameters(model: str, folder: Path, **options: Any) -> torch.Tensor:
    """Parameters after a run."""
    trainer = make_trainer(model, folder, **options)
    trainer.train()
    return parameters(trainer)


class GradientCallback(TrainerCallback):
    """Keeps the gradient that the optimizer is about to use."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradient = torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()])


def step_gradient(model: str, folder: Path, **options: Any) -> torch.Tensor:
    """Gradient of one optimizer step, not clipped."""
    trainer = make_trainer(model, folder, **({"max_grad_norm": 0.0, "max_steps": 1} | options))
    callback = GradientCallback()
    trainer.add_callback(callback)
    trainer.train()
    return callback.gradient


def gradient_of(model: str, folder: Path, algorithm: str, **options: Any) -> torch.Tensor:
    """Gradient of one step of a preset on the fixed rollouts."""
    return step_gradient(model, folder, algorithm=algorithm, trainer={"rollout_func": fixed_rollouts}, **options)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what was expected."""
    return ((found - expected).norm() / expected.norm()).item()
