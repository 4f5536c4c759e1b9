"""What a step of HPTTrainer costs beside GRPOTrainer's, and each way to generate beside the plain one: ratios."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from trl import GRPOTrainer
from trl.import_utils import is_vllm_available

from hpt_trl.profiling.workload import Cost, Group, Mix, floor, forward_of_all, measure, tokens_per_second
from hpt_trl.trainer.hpt import HPTTrainer


@dataclass
class Pairs:
    """A ratio, and the tokens computed on both sides of it."""

    ratio: float
    tokens: int
    other_tokens: int


@dataclass
class Result:
    """One ratio, the goal it is held against, and what it was taken from."""

    name: str
    ratio: float
    goal: float
    holds: bool
    what: str
    model: str
    tokens: int
    other_tokens: int
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """A model, and how long and how often to measure it."""

    model: str
    name: str
    length: int
    repeats: int
    dtype: str

    def groups(self, kinds: Sequence[str], size: int = 8, length: int | None = None) -> list[Group]:
        """Prompts whose rollouts were "mixed", "all" or "none" solved; demonstrations as long as rollouts."""
        draw, mean = random.Random(0), length or self.length
        verdicts = {"mixed": [1.0] + [0.0] * (size - 1), "all": [1.0] * size, "none": [0.0] * size}

        def tokens() -> int:
            return draw.randint(mean // 2, mean * 3 // 2)

        return [Group(draw.randint(20, 60), [tokens() for _ in range(size)], verdicts[k], tokens()) for k in kinds]

    def pairs(
        self, first: Callable[[], Cost], second: Callable[[], Cost], part: str = "training", more: int = 1
    ) -> Pairs:
        """Median ratio of two steps' times, taken in turns, and every second time the other way round.

        Args:
            first, second: make and measure a step.
            part: of its cost.
            more: how many times as often as usual, for ratios near 1.
        """
        costs = []
        for repeat in range(more * self.repeats):
            other = second() if repeat % 2 else None
            one = first()
            costs.append((one, other or second()))
        ratio = median(getattr(one, part) / getattr(other, part) for one, other in costs)
        return Pairs(ratio, costs[0][0].tokens, costs[0][1].tokens)

    def ours(self, mix: Mix, has_profile: bool = False) -> Cost:
        """A step of HPTTrainer."""
        return measure(HPTTrainer, self.model, mix, self.dtype, has_profile)

    def theirs(self, mix: Mix, has_profile: bool = False) -> Cost:
        """A step of GRPOTrainer."""
        return measure(GRPOTrainer, self.model, mix, self.dtype, has_profile)

    def result(self, name: str, pairs: Pairs, goal: float, what: str, **more: Any) -> Result:
        """A ratio beside its goal."""
        holds = pairs.ratio <= goal and more.get("memory_ratio", 0) <= more.get("memory_goal", 1)
        return Result(name, round(pairs.ratio, 4), goal, holds, what, self.name, pairs.tokens, pairs.other_tokens, more)


def no_waste(bench: Bench) -> Result:
    """Every group has signal: nothing to save, and nothing may be added."""
    mix = Mix(bench.groups(["mixed"] * 8), 8)
    pairs = bench.pairs(lambda: bench.ours(mix), lambda: bench.theirs(mix), "step", more=3)
    return bench.result("no_waste", pairs, 1.03, "all groups mixed, so TRL's micro-batches: step, HPT / GRPO")


def wasteful(bench: Bench) -> Result:
    """Half of the prompts are unsolved, a quarter always solved."""
    mix = wasteful_mix(bench)
    pairs = bench.pairs(lambda: bench.ours(mix), lambda: bench.theirs(mix))
    # With vLLM, TRL computes old log-probabilities of all rows before there is a verdict: this much comes on top.
    forward = bench.pairs(lambda: forward_of_all(bench.model, mix, bench.dtype), lambda: bench.theirs(mix))
    what = "half unsolved, a quarter all-solved: training part, HPT / GRPO"
    return bench.result("wasteful", pairs, 0.45, what, forward_of_all=round(forward.ratio, 4))


def wasteful_mix(bench: Bench) -> Mix:
    """Eight prompts of which two have signal in their rollouts."""
    return Mix(bench.groups(["none"] * 4 + ["all"] * 2 + ["mixed"] * 2), 8)


def long_demonstration(bench: Bench) -> Iterator[Result]:
    """One demonstration 16 times as long as the 63 rollouts beside it, or as a row among them."""
    length = max(16, bench.length // 4)
    # Every prompt learns from rollouts, one of them from its demonstration too.
    groups = [replace(group, demonstration=0) for group in bench.groups(["mixed"] * 7, 9, length)]
    groups[0].demonstration = 16 * length
    apart = Mix(groups, 9, {"gate": "linear"})
    groups = bench.groups(["mixed"] * 8, 8, length)
    groups[0].rollouts[0] = 16 * length
    padded = Mix(groups, 8)
    what = "a demonstration 16 times as long as 63 rollouts: {}, apart / as a row all are padded to"
    time = bench.pairs(lambda: bench.ours(apart), lambda: bench.theirs(padded))
    yield bench.result("long_demonstration_time", time, 0.35, what.format("training part"))
    memory = replace(time, ratio=bench.ours(apart, True).peak / bench.theirs(padded, True).peak)
    yield bench.result("long_demonstration_memory", memory, 0.6, what.format("peak memory"))


def over_floor(bench: Bench) -> Result:
    """Beside bare forward and backward over the tokens with signal."""
    mix = wasteful_mix(bench)
    pairs = bench.pairs(lambda: bench.ours(mix), lambda: floor(bench.model, mix, bench.dtype))
    what = "training part, HPT / bare forward and backward over the tokens with signal"
    return bench.result("over_floor", pairs, 1.15, what)


def rank_imbalance(bench: Bench) -> Result:
    """Demonstrations, long and short, on one of two ranks only."""
    groups = bench.groups(["none"] * 4 + ["mixed"] * 4)
    for group, factor in zip(groups, (8, 4, 2, 1)):
        group.demonstration = factor * bench.length
    mix = Mix(groups, 8)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "hpt_trl.profiling.workload", bench.model, json.dumps(asdict(mix))]
    # Tokens are counted, not seconds: two ranks on the CPU, whatever the machine has.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    if done.returncode != 0:
        raise ChildProcessError(f"Two ranks did not come to an end. The end of what they said: {done.stderr[-2000:]}")
    tokens = json.loads(done.stdout.strip().splitlines()[-1])
    ratio = max(tokens) * len(tokens) / sum(tokens)
    what = "demonstrations on one of two ranks: tokens of the largest rank / mean"
    return bench.result("rank_imbalance", Pairs(ratio, max(tokens), min(tokens)), 1.10, what)


def doubling(bench: Bench) -> Result:
    """Twice the rows; and 64 rows instead of 8 under a budget of tokens."""
    groups = bench.groups(["none"] + ["mixed"] * 3)
    half, whole = Mix(groups, 8), Mix(groups + groups, 8)
    pairs = bench.pairs(lambda: bench.ours(whole), lambda: bench.ours(half))
    group = Group(32, [bench.length] * 8, [1.0, 0.0] * 4)
    budget = {"gate": "off", "max_tokens_per_forward": 8 * (32 + bench.length)}
    few, many = Mix([group], 8, budget), Mix([group] * 8, 64, budget)
    memory = bench.ours(many, True).peak / bench.ours(few, True).peak
    what = "twice the rows: training part; memory of 64 rows under a token budget / of 8"
    return bench.result("doubling", pairs, 2.1, what, memory_ratio=round(memory, 4), memory_goal=1.05)


GENERATION: dict[str, tuple[type, dict[str, Any]]] = {
    "float32, as TRL": (GRPOTrainer, {}),
    "bf16 autocast, as TRL": (GRPOTrainer, {"bf16": True}),
    "bf16 autocast, as hpt_trl": (HPTTrainer, {"bf16": True}),
    "bf16 weights": (HPTTrainer, {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}),
    "static cache": (HPTTrainer, {"cache_implementation": "static"}),
    "no key/value cache": (HPTTrainer, {"generation_kwargs": {"use_cache": False}}),
    "continuous batching": (HPTTrainer, {"use_transformers_continuous_batching": True}),
    # An engine's first generation compiles: the second step is measured, with its update of the weights.
    "vLLM": (HPTTrainer, {"use_vllm": True, "vllm_mode": "colocate", "max_steps": 2}),
}


def generation(bench: Bench) -> Iterator[dict[str, Any]]:
    """Tokens per second of each way to generate 16 rollouts, and the ratio to the first."""
    mix = Mix([Group(32, [bench.length] * 8, [1.0] * 8, bench.length)] * 2, 16)
    speeds: dict[str, list[float]] = {name: [] for name in GENERATION if name != "vLLM" or is_vllm_available()}
    for _ in range(bench.repeats):
        for name in speeds:
            kind, options = GENERATION[name]
            options = {"model_init_kwargs": {"dtype": "float32"}} | options
            # As many tokens by every way.
            least = "min_tokens" if options.get("use_vllm") else "min_new_tokens"
            options = options | {"generation_kwargs": {least: bench.length} | options.get("generation_kwargs", {})}
            speeds[name].append(tokens_per_second(kind, bench.model, mix, options))
    plain = next(iter(speeds.values()))
    for name, found in speeds.items():
        ratio = median(one / other for one, other in zip(found, plain))
        yield {
            "name": name,
            "ratio": round(ratio, 3),
            "tokens_per_second": round(median(found), 1),
            "model": bench.name,
        }


def training(bench: Bench, larger: Bench) -> Iterator[Result]:
    """All ratios; the one against the floor on a model large enough for it to mean something."""
    bench.theirs(Mix(bench.groups(["mixed"]), 8))  # the first step of a process pays for imports
    yield no_waste(bench)
    yield wasteful(bench)
    yield from long_demonstration(bench)
    yield over_floor(larger)
    yield rank_imbalance(bench)
    yield doubling(bench)
