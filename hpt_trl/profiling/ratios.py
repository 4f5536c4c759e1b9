"""Cost ratios: a step of HPTTrainer against one of GRPOTrainer, and each way to generate against plain generation."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from trl import GRPOTrainer
from trl.import_utils import is_vllm_available

from hpt_trl.profiling.floor import floor_step
from hpt_trl.profiling.workload import (
    Group,
    StepCost,
    StepSpec,
    measure_step,
    sft_step,
    tokens_per_second,
)
from hpt_trl.trainer.hpt import HPTTrainer


@dataclass
class Ratio:
    """A ratio of two costs, and the tokens computed on either side."""

    value: float
    tokens: int
    other_tokens: int


@dataclass
class Result:
    """One ratio, its goal or None, and what was compared."""

    name: str
    ratio: float
    goal: float | None
    holds: bool
    what: str
    model: str
    tokens: int
    other_tokens: int
    more: dict[str, Any] = field(default_factory=dict)


def costs_in_turns(steps: Sequence[Callable[[], StepCost]], repeats: int) -> list[list[StepCost]]:
    """Costs of every step, measured in turns, in the opposite order every second time."""
    costs: list[list[StepCost]] = [[] for _ in steps]
    for repeat in range(repeats):
        for step, own in list(zip(steps, costs))[:: -1 if repeat % 2 else 1]:
            own.append(step())
    return costs


def cost_ratio(costs: Sequence[StepCost], base: Sequence[StepCost], field_name: str = "training_seconds") -> Ratio:
    """Median ratio of a time of two steps that were measured in turns."""
    ratio = median(getattr(cost, field_name) / getattr(other, field_name) for cost, other in zip(costs, base))
    return Ratio(ratio, costs[0].tokens, base[0].tokens)


def longest_row(length: int) -> int:
    """Room for the longest row of any ratio, in tokens: a demonstration and its prompt."""
    return max(8 * length, 16 * 16) + 64


@dataclass
class Bench:
    """A model and how to measure it.

    Args:
        model: a folder or a Hub id.
        name: name of the model in results.
        length: mean tokens of a rollout.
        repeats: pairs of steps per ratio.
        dtype: dtype of the parameters.
        options: options of both trainers' configs. With `max_steps` above 1, the last step is measured.
    """

    model: str
    name: str
    length: int
    repeats: int
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)

    def groups(self, kinds: Sequence[str], size: int = 8, length: int | None = None) -> list[Group]:
        """One prompt per kind: "mixed", "all" or "none" of its rollouts solved; demonstrations as long as rollouts."""
        generator, mean = random.Random(0), length or self.length
        rewards = {"mixed": [1.0] + [0.0] * (size - 1), "all": [1.0] * size, "none": [0.0] * size}

        def random_length() -> int:
            return generator.randint(mean // 2, mean * 3 // 2)

        return [
            Group(generator.randint(20, 60), [random_length() for _ in range(size)], rewards[kind], random_length())
            for kind in kinds
        ]

    def time_ratio(
        self,
        first: Callable[[], StepCost],
        second: Callable[[], StepCost],
        field_name: str = "training_seconds",
        repeat_factor: int = 1,
    ) -> Ratio:
        """Median ratio of the times of two steps, measured in turns.

        Args:
            first, second: make and measure a step.
            field_name: the time of `StepCost` to compare.
            repeat_factor: multiplies the number of repeats, for ratios near 1.
        """
        costs, others = costs_in_turns((first, second), repeat_factor * self.repeats)
        return cost_ratio(costs, others, field_name)

    def floor(self, spec: StepSpec, rows_per_pass: int) -> StepCost:
        """Cost of the same tokens without padding and without a trainer."""
        rounds, is_bf16 = self.options.get("max_steps", 1), self.options.get("bf16", False)
        return floor_step(self.model, spec, rows_per_pass, self.dtype, is_bf16, rounds)

    def hpt_step(self, spec: StepSpec, profile_memory: bool = False) -> StepCost:
        """Cost of a step of HPTTrainer."""
        return measure_step(HPTTrainer, self.model, spec, self.dtype, profile_memory, **self.options)

    def grpo_step(self, spec: StepSpec, profile_memory: bool = False) -> StepCost:
        """Cost of a step of GRPOTrainer."""
        return measure_step(GRPOTrainer, self.model, spec, self.dtype, profile_memory, **self.options)

    def result(self, name: str, ratio: Ratio, goal: float | None, what: str, **more: Any) -> Result:
        """Compare a ratio with its goal, if it has one."""
        holds = (goal is None or ratio.value <= goal) and more.get("memory_ratio", 0) <= more.get("memory_goal", 1)
        return Result(name, round(ratio.value, 4), goal, holds, what, self.name, ratio.tokens, ratio.other_tokens, more)


def no_waste(bench: Bench) -> Result:
    """Every group has signal: there is nothing to skip, and HPT must not add overhead."""
    spec = StepSpec(bench.groups(["mixed"] * 8), 8)
    ratio = bench.time_ratio(
        lambda: bench.hpt_step(spec), lambda: bench.grpo_step(spec), "step_seconds", repeat_factor=3
    )
    return bench.result("no_waste", ratio, 1.03, "all groups have signal: step, HPT / GRPO")


def wasteful(bench: Bench) -> Result:
    """Half of the prompts are never solved, a quarter always."""
    spec = wasteful_spec(bench)
    ratio = bench.time_ratio(lambda: bench.hpt_step(spec), lambda: bench.grpo_step(spec))
    return bench.result("wasteful", ratio, 0.45, "half unsolved, a quarter always solved: training part, HPT / GRPO")


def wasteful_vllm(bench: Bench) -> Result:
    """The same rollouts as if vLLM had sampled them: they need old log-probabilities."""
    spec = replace(wasteful_spec(bench), as_from_vllm=True)
    ratio = bench.time_ratio(lambda: bench.hpt_step(spec), lambda: bench.grpo_step(spec))
    what = "the same with TRL's correction for vLLM: training part, HPT / GRPO"
    return bench.result("wasteful_vllm", ratio, 0.35, what)


def wasteful_spec(bench: Bench) -> StepSpec:
    """Eight prompts, two of which have rollouts with signal."""
    return StepSpec(bench.groups(["none"] * 4 + ["all"] * 2 + ["mixed"] * 2), 8)


def long_demonstration(bench: Bench) -> Iterator[Result]:
    """One demonstration 16 times as long as the 63 rollouts, computed apart from them or as a row among them."""
    length = max(16, bench.length // 4)
    # All prompts train on rollouts, one of them on its demonstration too.
    groups = [replace(group, demonstration_length=0) for group in bench.groups(["mixed"] * 7, 9, length)]
    groups[0].demonstration_length = 16 * length
    separate = StepSpec(groups, 9, {"gate": "linear"})
    groups = bench.groups(["mixed"] * 8, 8, length)
    groups[0].rollout_lengths[0] = 16 * length
    padded = StepSpec(groups, 8)
    what = "a demonstration 16 times as long as 63 rollouts: {}, separate / as a row that all others are padded to"
    time = bench.time_ratio(lambda: bench.hpt_step(separate), lambda: bench.grpo_step(padded))
    yield bench.result("long_demonstration_time", time, 0.35, what.format("training part"))
    peak_ratio = bench.hpt_step(separate, True).peak_bytes / bench.grpo_step(padded, True).peak_bytes
    memory = replace(time, value=peak_ratio)
    yield bench.result("long_demonstration_memory", memory, 0.6, what.format("peak memory"))


FLOOR_ROWS_PER_PASS = (4, 8, 16)


def over_floor(bench: Bench) -> Iterator[Result]:
    """Distance to forward and backward passes alone: over one row at a time, and over the fastest batches."""
    spec = wasteful_spec(bench)
    floors = [partial(bench.floor, spec, rows) for rows in (1, *FLOOR_ROWS_PER_PASS)]
    hpt, *floor_costs = costs_in_turns([lambda: bench.hpt_step(spec), *floors], bench.repeats)
    one_row, *batches = [cost_ratio(hpt, costs) for costs in floor_costs]
    what = "training part, HPT / forward and backward over the tokens with signal, {} without padding"
    yield bench.result("over_single_rows", one_row, 1.15, what.format("one row at a time"))
    distance, rows = max(zip(batches, FLOOR_ROWS_PER_PASS), key=lambda pair: pair[0].value)
    # No goal: rows have different lengths, so batches without padding are out of reach.
    yield bench.result("over_floor", distance, None, what.format("in the fastest batches"), floor_rows_per_pass=rows)


def rank_imbalance(bench: Bench) -> Result:
    """Demonstrations of different lengths, all on one of two ranks."""
    groups = bench.groups(["none"] * 4 + ["mixed"] * 4)
    for group, factor in zip(groups, (8, 4, 2, 1)):
        group.demonstration_length = factor * bench.length
    spec = StepSpec(groups, 8)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "hpt_trl.profiling.workload", bench.model, json.dumps(asdict(spec))]
    # Always two ranks on the CPU: this counts tokens, not seconds.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if process.returncode != 0:
        raise ChildProcessError(f"The step on two ranks failed. The end of its output: {process.stderr[-2000:]}")
    tokens = json.loads(process.stdout.strip().splitlines()[-1])
    ratio = Ratio(max(tokens) * len(tokens) / sum(tokens), max(tokens), min(tokens))
    what = "demonstrations on one of two ranks: tokens of the largest rank / mean"
    return bench.result("rank_imbalance", ratio, 1.10, what)


def warmup_step(bench: Bench) -> Result:
    """A step of the SFT warm-up, in which nothing is generated, against one of TRL's SFTTrainer."""
    groups = bench.groups(["mixed"] * 8)
    spec = StepSpec(groups, 64, {"sft_warmup_steps": 1, "sft_warmup_holdout": 0.0})
    ratio = bench.time_ratio(
        lambda: bench.hpt_step(spec), lambda: sft_step(bench.model, spec, bench.dtype), "step_seconds", repeat_factor=3
    )
    what = "a step of the SFT warm-up on 8 demonstrations / of SFTTrainer on the same"
    return bench.result("warmup_step", ratio, 1.25, what)


def doubling(bench: Bench) -> Result:
    """Twice the rows, and 64 rows instead of 8 with the same `max_tokens_per_forward`."""
    groups = bench.groups(["none"] + ["mixed"] * 3)
    single, double = StepSpec(groups, 8), StepSpec(groups + groups, 8)
    ratio = bench.time_ratio(lambda: bench.hpt_step(double), lambda: bench.hpt_step(single))
    what = "twice the rows: training part; memory of 64 rows under a token budget / of 8"
    memory = round(memory_under_budget(bench), 4)
    return bench.result("doubling", ratio, 2.1, what, memory_ratio=memory, memory_goal=1.05)


def memory_under_budget(bench: Bench) -> float:
    """Peak memory of 64 rows per micro-batch over that of 8, under the same `max_tokens_per_forward`."""
    group = Group(32, [bench.length] * 8, [1.0, 0.0] * 4)
    options = {"gate": "off", "max_tokens_per_forward": 8 * (32 + bench.length)}
    few_rows, many_rows = StepSpec([group], 8, options), StepSpec([group] * 8, 64, options)
    return bench.hpt_step(many_rows, True).peak_bytes / bench.hpt_step(few_rows, True).peak_bytes


GENERATION: dict[str, tuple[type, dict[str, Any]]] = {
    "float32, as TRL": (GRPOTrainer, {}),
    "bf16 autocast, as TRL": (GRPOTrainer, {"bf16": True}),
    "bf16 autocast, as hpt_trl": (HPTTrainer, {"bf16": True}),
    "bf16 weights": (HPTTrainer, {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}),
    "static cache": (HPTTrainer, {"cache_implementation": "static"}),
    "no key/value cache": (HPTTrainer, {"generation_kwargs": {"use_cache": False}}),
    "continuous batching": (HPTTrainer, {"use_transformers_continuous_batching": True}),
    # The first generation of an engine compiles, so the second step is measured, including its weight update.
    "vLLM": (HPTTrainer, {"use_vllm": True, "vllm_mode": "colocate", "max_steps": 2}),
}


def generation(bench: Bench) -> Iterator[dict[str, Any]]:
    """Tokens per second of each way to generate 16 rollouts, and the ratio to the first way."""
    spec = StepSpec([Group(32, [bench.length] * 8, [1.0] * 8, bench.length)] * 2, 16)
    speeds: dict[str, list[float]] = {name: [] for name in GENERATION if name != "vLLM" or is_vllm_available()}
    for _ in range(bench.repeats):
        for name in speeds:
            trainer_class, options = GENERATION[name]
            options = {"model_init_kwargs": {"dtype": "float32"}} | options
            # All ways generate the same number of tokens.
            min_tokens = "min_tokens" if options.get("use_vllm") else "min_new_tokens"
            generation_kwargs = {min_tokens: bench.length} | options.get("generation_kwargs", {})
            options = options | {"generation_kwargs": generation_kwargs}
            speeds[name].append(tokens_per_second(trainer_class, bench.model, spec, options))
    plain_speeds = next(iter(speeds.values()))
    for name, own_speeds in speeds.items():
        ratio = median(speed / plain for speed, plain in zip(own_speeds, plain_speeds))
        yield {
            "name": name,
            "ratio": round(ratio, 3),
            "tokens_per_second": round(median(own_speeds), 1),
            "model": bench.name,
        }


def training(bench: Bench, larger: Bench) -> Iterator[Result]:
    """All training ratios. The floor is compared on a larger model, where fixed overheads do not dominate."""
    bench.grpo_step(StepSpec(bench.groups(["mixed"]), 8))  # warm-up: the first step of a process includes imports
    yield no_waste(bench)
    yield wasteful(bench)
    yield wasteful_vllm(bench)
    yield from long_demonstration(bench)
    yield from over_floor(larger)
    yield rank_imbalance(bench)
    yield warmup_step(larger)
    yield doubling(bench)
