"""Runs with vLLM's engine inside the trainer's process, which tests/trainer/test_vllm.py launches and judges.

An engine stays until its process ends, and vLLM reads its settings from the environment: every run is a process.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import ModelConfig
from trl.generation import vllm_generation
from vllm import SamplingParams

from hpt_trl import HPTConfig, HPTTrainer
from hpt_trl.commands.train import HPTScriptArguments
from hpt_trl.common.command_line import parse
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.tasks import dataset
from tests.tiny import GradientCallback, parity_reward
from tests.trainer import vllm_cpu  # noqa: F401  (patches the engine)

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
OVERRIDES = {
    "use_cpu": True, "bf16": False, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
    "num_generations": 4, "max_completion_length": 24, "vllm_max_model_length": 128, "max_steps": 3,
    "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True, "seed": 3,
}  # fmt: skip


def make_trainer(folder: Path, served_dtype: str, keywords: dict[str, Any], **options: Any) -> HPTTrainer:
    """A trainer of the committed colocate config: 4 prompts x 4 rollouts a step, on the bundled model."""
    vllm_generation.LLM = partial(vllm_generation.LLM, dtype=served_dtype)
    flags = ["--config", str(ROOT / "configs" / "vllm" / "colocate.yaml"), "--output_dir", str(folder)]
    for name, value in (OVERRIDES | options).items():
        flags += [f"--{name}", str(value)]
    _, args, _ = parse((HPTScriptArguments, HPTConfig, ModelConfig), flags, "test")
    rows = dataset(64, 0, "train")
    return HPTTrainer(MODEL_PATH, parity_reward, args, rows, rows.select(range(4)), **keywords)


def served_logps(trainer: HPTTrainer, ids: list[int]) -> torch.Tensor:
    """(T - 1,) log-probabilities that the engine gives a text's tokens after the first."""
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=0)
    (output,) = trainer.vllm_generation.llm.generate([{"prompt_token_ids": ids}], sampling, use_tqdm=False)
    return torch.tensor([found[token].logprob for token, found in zip(ids[1:], output.prompt_logprobs[1:])])


@torch.no_grad()
def policy_logps(trainer: HPTTrainer, ids: list[int]) -> torch.Tensor:
    """(T - 1,) the same by transformers."""
    logps = trainer.model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(dim=-1)
    return logps.gather(1, torch.tensor(ids[1:]).unsqueeze(1)).squeeze(1)


def follow_syncs(trainer: HPTTrainer) -> list[dict[str, torch.Tensor]]:
    """Note, at every sync, what engine and policy say of a text."""
    row = trainer.train_dataset[0]
    ids = trainer.processing_class(row["prompt"] + row["demonstration"])["input_ids"]
    upstream, notes = trainer.vllm_generation.sync_weights, []

    def sync() -> None:
        before = served_logps(trainer, ids)
        upstream()
        notes.append({"before": before, "after": served_logps(trainer, ids), "policy": policy_logps(trainer, ids)})

    trainer.vllm_generation.sync_weights = sync
    return notes


def syncs(folder: Path, has_adapter: bool) -> dict[str, Any]:
    """Three steps under the gate, and an evaluation, which is served the weights of the third."""
    keywords = {"peft_config": LoraConfig(r=8, target_modules="all-linear")} if has_adapter else {}
    options = {"gate_threshold": 0.5, "learning_rate": 3e-2 if has_adapter else 3e-3}
    trainer = make_trainer(folder, "float32", keywords, **options)
    notes = follow_syncs(trainer)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.evaluate()
    return {"notes": notes, "log": json.dumps(log)}


def fixed_gate(solve_rate_P: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Step 0: demonstrations. Step 1: rollouts. Step 2: rollouts of two prompts, demonstrations of two."""
    patterns = torch.tensor([[0.0] * 4, [1.0] * 4, [1.0, 1.0, 0.0, 0.0]])
    rollouts_P = patterns[step, torch.arange(len(solve_rate_P)) % 4]
    return rollouts_P, 1 - rollouts_P


class Gradients(GradientCallback):
    """Keeps the gradient of every step."""

    def __init__(self) -> None:
        self.all: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().on_pre_optimizer_step(*args, **kwargs)
        self.all.append(self.gradient)


def ratios(folder: Path) -> dict[str, Any]:
    """Three steps of a policy that stays as it is, served in another precision: gradients and what was generated."""
    options = {"learning_rate": 0.0, "max_grad_norm": 0.0, "sft_weight": 1.0}
    trainer = make_trainer(folder, "bfloat16", {"gate": fixed_gate}, **options)
    gradients, generated = Gradients(), []
    trainer.add_callback(gradients)
    upstream = trainer._generate_and_score_completions

    def generate(inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = upstream(inputs)
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages")
        rows = {name: batch[name].clone() for name in (*names, "importance_sampling_ratio")}
        generated.append(rows | {"demonstrations": [inputs[row]["demonstration"] for row in range(0, 16, 4)]})
        return batch

    trainer._generate_and_score_completions = generate
    trainer.train()
    return {"gradients": gradients.all, "generated": generated}


RUNS = {
    "full": partial(syncs, has_adapter=False),
    "adapter": partial(syncs, has_adapter=True),
    "ratios": ratios,
}

if __name__ == "__main__":
    name, path = sys.argv[1], Path(sys.argv[2])
    torch.save(RUNS[name](path), path / "results.pt")
