"""Scripted training steps: GRPOTrainer or HPTTrainer with fixed rollouts, rewards and demonstrations."""

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from datasets import Dataset
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, SFTConfig, SFTTrainer

from hpt_trl.config import HPTConfig
from hpt_trl.trainer.hpt import HPTTrainer

# Options whose defaults differ between HPTConfig and GRPOConfig: both trainers get the same values.
_RECIPE_NAMES = ("learning_rate", "lr_scheduler_type", "loss_type", "scale_rewards")
RECIPE: dict[str, Any] = {name: getattr(HPTConfig, name) for name in _RECIPE_NAMES}
_COMMON_OPTIONS: dict[str, Any] = {
    "max_steps": 1, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "report_to": "none",
    "save_strategy": "no", "disable_tqdm": True,
}  # fmt: skip


@dataclass
class Group:
    """One prompt with its rollouts.

    Args:
        prompt_length: tokens of the prompt.
        rollout_lengths: tokens of each rollout.
        rewards: reward of each rollout.
        demonstration_length: tokens of the demonstration; 0 if there is none.
    """

    prompt_length: int
    rollout_lengths: list[int]
    rewards: list[float]
    demonstration_length: int = 0

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ, so that the advantages are not zero."""
        return len(set(self.rewards)) > 1


@dataclass
class StepSpec:
    """The prompts of one optimizer step and its micro-batch size.

    Args:
        groups: the prompts, all with the same number of rollouts.
        rows_per_micro_batch: rollouts per micro-batch.
        options: options of the trainer's config.
        as_from_vllm: whether the trainer corrects for the engine that sampled, as TRL does with vLLM.
    """

    groups: list[Group]
    rows_per_micro_batch: int
    options: dict[str, Any] = field(default_factory=dict)
    as_from_vllm: bool = False

    @property
    def group_size(self) -> int:
        return len(self.groups[0].rollout_lengths)

    @property
    def total_rows(self) -> int:
        return self.group_size * len(self.groups)


@dataclass
class StepCost:
    """Cost of one optimizer step.

    Args:
        step_seconds: wall-clock time of the step.
        training_seconds: the same up to the optimizer.
        tokens: tokens in forward passes with a gradient, padding included.
        peak_bytes: peak memory above what was allocated before the step; 0 if memory was not profiled.
    """

    step_seconds: float
    training_seconds: float
    tokens: int
    peak_bytes: int = 0


class StepProfiler(TrainerCallback):
    """Measures time, tokens and optionally memory of the last optimizer step."""

    def __init__(self, device: torch.device, profile_memory: bool):
        self.device, self.profile_memory = device, profile_memory
        self.tokens, self.peak_bytes = 0, 0

    def on_step_begin(self, args, state, control, **kwargs):
        gc.collect()
        self.tokens = 0
        if self.profile_memory:
            self.read_peak = track_peak_memory(self.device)
        self.begin = synchronized_time(self.device)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.training_seconds = synchronized_time(self.device) - self.begin

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds = synchronized_time(self.device) - self.begin
        if self.profile_memory:
            self.peak_bytes = self.read_peak()

    def cost(self) -> StepCost:
        """Cost of the step."""
        return StepCost(self.seconds, self.training_seconds, self.tokens, self.peak_bytes)

    def count_tokens(self, module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        """Forward pre-hook of the model that counts the tokens to be backpropagated, padding included."""
        if torch.is_grad_enabled():
            self.tokens += keywords["input_ids"].numel()


def synchronized_time(device: torch.device) -> float:
    """Wall-clock time in seconds, when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def track_peak_memory(device: torch.device) -> Callable[[], int]:
    """Start tracking torch's allocations. Returns a function that gives the peak in bytes above the start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - before
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    profiler.start()

    def stop() -> int:
        profiler.stop()
        results: Any = profiler.profiler
        memory = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(memory, key=lambda event: event.start_ns())]
        return max(accumulate(changes, initial=0))

    return stop


def text_of_length(tokenizer: Any, tokens: int, start: str = "") -> str:
    """A text of about `tokens` tokens."""
    return tokenizer.decode(tokenizer(start + "7 " * tokens, verbose=False)["input_ids"][:tokens])


class ScriptedRollouts:
    """Replaces generation and verification: a dataset, a rollout function and a reward function for a `StepSpec`."""

    def __init__(self, spec: StepSpec, tokenizer: Any):
        self.spec, self.tokenizer = spec, tokenizer
        self.prompts = [
            text_of_length(tokenizer, group.prompt_length, f"{index}. ") for index, group in enumerate(spec.groups)
        ]
        self.group_of = dict(zip(self.prompts, spec.groups))
        self.dataset = Dataset.from_list(
            [{"prompt": prompt, "demonstration": self._demonstration(group)} for prompt, group in self.group_of.items()]
        )

    def _demonstration(self, group: Group) -> str:
        # The trainer appends the end-of-sequence token.
        tokens = group.demonstration_length - 1
        return text_of_length(self.tokenizer, tokens) if group.demonstration_length else ""

    def rollout_func(self, prompts: list[str], trainer: Any) -> dict[str, list]:
        """TRL's `rollout_func`; prompts are repeated group by group."""
        generator = torch.Generator().manual_seed(0)
        lengths = [
            self.group_of[prompt].rollout_lengths[row % self.spec.group_size] for row, prompt in enumerate(prompts)
        ]
        completions = [torch.randint(5, 50, (length,), generator=generator).tolist() for length in lengths]
        logprobs = None
        if self.spec.as_from_vllm:
            # TRL looks at it again when it corrects; scripted rollouts need no engine. No cost depends on the values.
            trainer.use_vllm, logprobs = True, [[-1.0] * length for length in lengths]
        return {"prompt_ids": self.tokenizer(prompts)["input_ids"], "completion_ids": completions, "logprobs": logprobs}

    def reward_func(self, prompts: list[str], **kwargs: Any) -> list[float]:
        """TRL's reward function."""
        return [self.group_of[prompt].rewards[row % self.spec.group_size] for row, prompt in enumerate(prompts)]


def measure_step(
    trainer_class: type,
    model: str,
    spec: StepSpec,
    dtype: str = "float32",
    profile_memory: bool = False,
    **common: Any,
) -> StepCost:
    """Run an optimizer step of a new trainer on scripted rollouts.

    Args:
        trainer_class: GRPOTrainer or HPTTrainer.
        model: a folder or a Hub id.
        spec: the step's prompts and batch layout.
        dtype: dtype of the parameters.
        profile_memory: whether to profile memory, which slows the step down on a CPU.
        common: options of either trainer's config. With `max_steps` above 1, the last step is measured.
    """
    script = ScriptedRollouts(spec, AutoTokenizer.from_pretrained(model))
    options = {"model_init_kwargs": {"dtype": dtype}} | common | (spec.options if trainer_class is HPTTrainer else {})
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            trainer_class, model, script, folder, options, script.reward_func, rollout_func=script.rollout_func
        )
        profiler = StepProfiler(trainer.accelerator.device, profile_memory)
        trainer.add_callback(profiler)
        hook = trainer.model.register_forward_pre_hook(profiler.count_tokens, with_kwargs=True)
        trainer.train()
        hook.remove()
    return profiler.cost()


def sft_step(model: str, spec: StepSpec, dtype: str = "float32") -> StepCost:
    """Cost of a step of TRL's SFTTrainer on the demonstrations of the step's prompts."""
    script = ScriptedRollouts(spec, AutoTokenizer.from_pretrained(model))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **_COMMON_OPTIONS, output_dir=folder, use_cpu=not torch.cuda.is_available(),
            per_device_train_batch_size=len(spec.groups), completion_only_loss=True,
            model_init_kwargs={"dtype": dtype}, learning_rate=RECIPE["learning_rate"],
        )  # fmt: skip
        rows = script.dataset.rename_column("demonstration", "completion")
        trainer: Any = SFTTrainer(model, args=config, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        profiler = StepProfiler(trainer.accelerator.device, profile_memory=False)
        trainer.add_callback(profiler)
        trainer.model.register_forward_pre_hook(profiler.count_tokens, with_kwargs=True)
        trainer.train()
    return profiler.cost()


def tokens_per_second(trainer_class: type, model: str, spec: StepSpec, options: dict[str, Any]) -> float:
    """Generation speed of a new trainer, measured from the start of its last step to the call of the reward function.

    Args:
        trainer_class: GRPOTrainer or HPTTrainer.
        model: a folder or a Hub id.
        spec: number of rollouts and their maximum length.
        options: options of the trainer's config.
    """
    script = ScriptedRollouts(spec, AutoTokenizer.from_pretrained(model))
    generated, end = 0, 0.0

    def reward_func(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        nonlocal generated, end
        generated, end = sum(map(len, completion_ids)), time.perf_counter()
        return [float(row % 2) for row in range(len(completion_ids))]

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(trainer_class, model, script, folder, options, reward_func)
        profiler = StepProfiler(trainer.accelerator.device, profile_memory=False)
        trainer.add_callback(profiler)
        trainer.train()
    return generated / (end - profiler.begin)


def make_trainer(
    trainer_class: type,
    model: str,
    script: ScriptedRollouts,
    folder: str,
    options: dict[str, Any],
    reward_func: Callable,
    **keywords: Any,
) -> Any:
    """A trainer that takes one step on the script's prompts."""
    # The process group does not exist yet.
    spec, processes = script.spec, int(os.environ.get("WORLD_SIZE", 1))
    defaults: dict[str, Any] = _COMMON_OPTIONS | {
        "output_dir": folder,
        "per_device_train_batch_size": spec.rows_per_micro_batch,
        "gradient_accumulation_steps": spec.total_rows // (spec.rows_per_micro_batch * processes),
        "num_generations": spec.group_size,
        "max_completion_length": max(max(*group.rollout_lengths, group.demonstration_length) for group in spec.groups),
        "use_cpu": not torch.cuda.is_available(),
        "shuffle_dataset": False,
    }
    config_class = HPTConfig if trainer_class is HPTTrainer else GRPOConfig
    config = config_class(**(defaults | RECIPE | options))
    trainer = trainer_class(model, reward_func, config, script.dataset, **keywords)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main(model: str, spec_json: str) -> None:
    """Run a step as one of several ranks; rank 0 prints the tokens of every rank."""
    fields = json.loads(spec_json)
    groups = [Group(**group) for group in fields.pop("groups")]
    tokens = measure_step(HPTTrainer, model, StepSpec(groups, **fields)).tokens
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens_by_rank = gather(torch.tensor([tokens], device=device)).tolist()
    if torch.distributed.get_rank() == 0:
        print(json.dumps(tokens_by_rank))
    # A rank that leaves this to interpreter shutdown may abort if its peer has already exited.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
