"""Training steps of known make: fixed rollouts, verdicts and demonstrations through GRPOTrainer or HPTTrainer."""

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from datasets import Dataset
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig

from hpt_trl.config import HPTConfig
from hpt_trl.trainer.hpt import HPTTrainer

# HPTConfig's defaults that are not GRPOConfig's, so that both trainers compute the same.
_RECIPE_NAMES = ("learning_rate", "lr_scheduler_type", "loss_type", "scale_rewards")
RECIPE: dict[str, Any] = {name: getattr(HPTConfig, name) for name in _RECIPE_NAMES}


@dataclass
class Group:
    """One prompt: lengths in tokens of the prompt, its rollouts, and its demonstration (0: none); and the verdicts."""

    prompt: int
    rollouts: list[int]
    verdicts: list[float]
    demonstration: int = 0

    @property
    def has_signal(self) -> bool:
        """Whether its rollouts differ in their verdicts."""
        return len(set(self.verdicts)) > 1


@dataclass
class Mix:
    """The prompts of one optimizer step, and how it is cut.

    Args:
        groups: its prompts, of as many rollouts each.
        rows: rollouts a micro-batch.
        options: options of the trainer's config.
    """

    groups: list[Group]
    rows: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def group_size(self) -> int:
        return len(self.groups[0].rollouts)

    @property
    def total_rows(self) -> int:
        return self.group_size * len(self.groups)


@dataclass
class Cost:
    """Of one optimizer step.

    Args:
        step: seconds.
        training: seconds without the optimizer.
        tokens: forwarded with a gradient, padding included.
        peak: bytes above what was allocated before; 0 where it was not followed.
    """

    step: float
    training: float
    tokens: int
    peak: int = 0


class Meter(TrainerCallback):
    """Measures an optimizer step."""

    def __init__(self, device: torch.device, has_profile: bool):
        self.device, self.has_profile = device, has_profile
        self.tokens, self.peak = 0, 0

    def on_step_begin(self, args, state, control, **kwargs):
        gc.collect()
        if self.has_profile:
            self.stop = start_memory(self.device)
        self.begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self.begin
        if self.has_profile:
            self.peak = self.stop()

    def count(self, module: nn.Module, arguments: tuple, keywords: dict[str, Any]) -> None:
        """Forward pre-hook of the model: tokens that will be backpropagated, padding included."""
        if torch.is_grad_enabled():
            self.tokens += keywords["input_ids"].numel()


def start_memory(device: torch.device) -> Callable[[], int]:
    """Start to follow what torch allocates; the function returned gives the peak in bytes above the start."""
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


def text_of(tokenizer: Any, tokens: int, start: str = "") -> str:
    """A text of about so many tokens."""
    return tokenizer.decode(tokenizer(start + "7 " * tokens, verbose=False)["input_ids"][:tokens])


class Script:
    """What happens in a step, instead of generation and verification: a data set, a rollout function and a reward."""

    def __init__(self, mix: Mix, tokenizer: Any):
        self.mix, self.tokenizer = mix, tokenizer
        self.prompts = [text_of(tokenizer, group.prompt, f"{index}. ") for index, group in enumerate(mix.groups)]
        self.group_of = dict(zip(self.prompts, mix.groups))
        self.rows = Dataset.from_list(
            [
                {
                    "prompt": prompt,
                    # The end-of-sequence token is added to it.
                    "demonstration": text_of(tokenizer, group.demonstration - 1) if group.demonstration else "",
                }
                for prompt, group in self.group_of.items()
            ]
        )

    def rollouts(self, prompts: list[str], trainer: Any) -> dict[str, list]:
        """TRL's `rollout_func`: rows come group by group."""
        generator = torch.Generator().manual_seed(0)
        lengths = [self.group_of[prompt].rollouts[row % self.mix.group_size] for row, prompt in enumerate(prompts)]
        completions = [torch.randint(5, 50, (length,), generator=generator).tolist() for length in lengths]
        return {"prompt_ids": self.tokenizer(prompts)["input_ids"], "completion_ids": completions, "logprobs": None}

    def verdict(self, prompts: list[str], **kwargs: Any) -> list[float]:
        """TRL's reward function."""
        return [self.group_of[prompt].verdicts[row % self.mix.group_size] for row, prompt in enumerate(prompts)]


def measure(kind: type, model: str, mix: Mix, dtype: str = "float32", has_profile: bool = False) -> Cost:
    """Take one optimizer step of a new trainer on a script.

    Args:
        kind: GRPOTrainer or HPTTrainer.
        model: a folder or a Hub id.
        mix: what the step consists of.
        dtype: of the parameters.
        has_profile: whether to follow memory, which slows the step down.
    """
    script = Script(mix, AutoTokenizer.from_pretrained(model))
    options = {"model_init_kwargs": {"dtype": dtype}} | (mix.options if kind is HPTTrainer else {})
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, model, script, folder, options, script.verdict, rollout_func=script.rollouts)
        meter = Meter(trainer.accelerator.device, has_profile)
        trainer.add_callback(meter)
        hook = trainer.model.register_forward_pre_hook(meter.count, with_kwargs=True)
        trainer.train()
        hook.remove()
    return Cost(meter.seconds, trainer.state.log_history[0]["step_time"], meter.tokens, meter.peak)


def tokens_per_second(kind: type, model: str, mix: Mix, options: dict[str, Any]) -> float:
    """How fast a new trainer generates: from the start of its last step to the call of the reward function.

    Args:
        kind: GRPOTrainer or HPTTrainer.
        model: a folder or a Hub id.
        mix: how many rollouts, and how long they may become.
        options: options of the trainer's config.
    """
    script = Script(mix, AutoTokenizer.from_pretrained(model))
    generated, end = 0, 0.0

    def verdict(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        nonlocal generated, end
        generated, end = sum(map(len, completion_ids)), time.perf_counter()
        return [float(row % 2) for row in range(len(completion_ids))]

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(kind, model, script, folder, options, verdict)
        meter = Meter(trainer.accelerator.device, has_profile=False)
        trainer.add_callback(meter)
        trainer.train()
    return generated / (end - meter.begin)


def make_trainer(
    kind: type, model: str, script: Script, folder: str, options: dict[str, Any], reward: Callable, **keywords: Any
) -> Any:
    """A trainer for one step of a script's prompts."""
    mix, processes = script.mix, int(os.environ.get("WORLD_SIZE", 1))  # there is no process group yet
    defaults: dict[str, Any] = {
        "output_dir": folder,
        "max_steps": 1,
        "per_device_train_batch_size": mix.rows,
        "gradient_accumulation_steps": mix.total_rows // (mix.rows * processes),
        "num_generations": mix.group_size,
        "max_completion_length": max(max(*group.rollouts, group.demonstration) for group in mix.groups),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "shuffle_dataset": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    config = HPTConfig if kind is HPTTrainer else GRPOConfig
    trainer = kind(model, reward, config(**(defaults | RECIPE | options)), script.rows, **keywords)
    trainer.remove_callback(PrinterCallback)
    return trainer


def floor(model: str, mix: Mix, dtype: str = "float32") -> Cost:
    """Cost of bare forward and backward over the tokens with signal: one row at a time, nothing padded."""
    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    policy.to("cuda" if torch.cuda.is_available() else "cpu").train()
    rows = _rows_with_signal(mix, AutoTokenizer.from_pretrained(model))
    begin = time.perf_counter()
    for ids, labels in rows:
        policy(input_ids=ids.to(policy.device), labels=labels.to(policy.device)).loss.backward()
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    return Cost(seconds, seconds, sum(ids.numel() for ids, _ in rows))


@torch.no_grad()
def forward_of_all(model: str, mix: Mix, dtype: str = "float32") -> Cost:
    """Cost of a forward over all rollouts, silent ones too, padded as TRL pads them: old log-probabilities."""
    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    policy.to("cuda" if torch.cuda.is_available() else "cpu")
    width = max(group.prompt for group in mix.groups) + max(max(group.rollouts) for group in mix.groups)
    ids = torch.full((mix.rows, width), 7, device=policy.device)
    begin = time.perf_counter()
    for _ in range(mix.total_rows // mix.rows):
        policy(input_ids=ids)
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    return Cost(seconds, seconds, ids.numel() * mix.total_rows // mix.rows)


def _rows_with_signal(mix: Mix, tokenizer: Any) -> Sequence[tuple[Tensor, Tensor]]:
    """(1, L) ids and labels of every rollout and demonstration that HPT learns from."""
    script = Script(mix, tokenizer)
    rows = []
    for prompt, group in script.group_of.items():
        prompt_ids = tokenizer(prompt)["input_ids"]
        lengths = group.rollouts if group.has_signal else []
        for length in [*lengths, *([group.demonstration] if group.demonstration and not any(group.verdicts) else [])]:
            ids = torch.tensor([prompt_ids + [7] * length])
            labels = ids.clone()
            labels[:, : len(prompt_ids)] = -100
            rows.append((ids, labels))
    return rows


def main(model: str, mix: str) -> None:
    """On one of several ranks: print the tokens of all of them."""
    parsed = json.loads(mix)
    groups = [Group(**group) for group in parsed.pop("groups")]
    tokens = measure(HPTTrainer, model, Mix(groups, **parsed)).tokens
    device = "cuda" if torch.cuda.is_available() else "cpu"
    everyones = gather(torch.tensor([tokens], device=device)).tolist()
    if torch.distributed.get_rank() == 0:
        print(json.dumps(everyones))
    # Left to the interpreter's end, a rank whose peer has gone may abort.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
