"""`hpt-trl benchmark`: what a step of HPTTrainer costs beside GRPOTrainer's on this machine, in ratios of one run."""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.utils import logging as transformers_logging
from trl import GRPOTrainer
from trl.import_utils import is_vllm_available

from hpt_trl.console import parse, user_errors
from hpt_trl.sources import MINIATURE, resolve_model
from hpt_trl.trainer import HPTTrainer
from hpt_trl.workload import Cost, Group, Mix, floor, forward_of_all, measure, tokens_per_second

PARTS = ("training", "generation")
FLOOR_PARAMETERS = 30_000_000


@dataclass
class BenchmarkArguments:
    """
    What to measure and on which model.

    Args:
        model (`str`): Folder, Hub id or "miniature".
    """

    model: str = field(default=MINIATURE, metadata={"help": "Model: a folder, a Hub id, or 'miniature'."})
    part: str = field(default="training", metadata={"help": "'training', or 'generation'."})
    quick: bool = field(default=False, metadata={"help": "Shorter rows and three repeats: minutes on two cores."})
    repeats: int = field(default=5, metadata={"help": "Pairs of steps a ratio is the median of."})
    length: int = field(default=128, metadata={"help": "Mean rollout in tokens."})
    dtype: str = field(default="float32", metadata={"help": "'float32' or 'bfloat16'."})
    json: str | None = field(default=None, metadata={"help": "Write the results to this file, too."})

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise ValueError(f"part must be one of {PARTS}, got {self.part!r}.")
        if self.repeats < 1 or self.length < 16:
            raise ValueError(
                f"repeats must be at least 1 and length at least 16 tokens, got {self.repeats} and {self.length}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}.")
        if self.json and not Path(self.json).absolute().parent.is_dir():
            raise ValueError(f"json names a folder that does not exist: {self.json!r}. Make it first.")
        if self.quick:
            self.repeats, self.length = min(self.repeats, 3), min(self.length, 64)


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

    def pairs(self, first: Callable[[], Cost], second: Callable[[], Cost], part: str = "training") -> Pairs:
        """Median ratio of two steps' times, taken in turns."""
        costs = [(first(), second()) for _ in range(self.repeats)]
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
    pairs = bench.pairs(lambda: bench.ours(mix), lambda: bench.theirs(mix), "step")
    return bench.result("no_waste", pairs, 1.03, "all groups mixed: step, HPT / GRPO")


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
    command += ["-m", "hpt_trl.workload", bench.model, json.dumps(asdict(mix))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise ChildProcessError(f"Two ranks did not come to an end. The end of what they said: {done.stderr[-2000:]}")
    tokens = json.loads(done.stdout.strip().splitlines()[-1])
    ratio = max(tokens) * len(tokens) / sum(tokens)
    what = "demonstrations on one of two ranks: tokens of the largest rank / mean"
    return bench.result("rank_imbalance", Pairs(ratio, max(tokens), min(tokens)), 1.10, what)


def doubling(bench: Bench) -> Result:
    """Twice the rows; and 64 rows instead of 8 under a budget of tokens."""
    groups = bench.groups(["mixed"] * 4)
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
    "continuous batching": (HPTTrainer, {"use_transformers_continuous_batching": True}),
    "vLLM": (HPTTrainer, {"use_vllm": True, "vllm_mode": "colocate"}),
}


def generation(bench: Bench) -> Iterator[dict[str, Any]]:
    """Tokens per second of each way to generate 32 rollouts, and the ratio to the first."""
    mix = Mix([Group(32, [bench.length] * 8, [1.0] * 8, bench.length)] * 4, 32)
    speeds: dict[str, list[float]] = {name: [] for name in GENERATION if name != "vLLM" or is_vllm_available()}
    for _ in range(bench.repeats):
        for name in speeds:
            kind, options = GENERATION[name]
            options = {"model_init_kwargs": {"dtype": "float32"}} | options
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


def generation_table(results: Sequence[dict[str, Any]]) -> Table:
    """A rich table with one row a way to generate."""
    shown = Table("generation", "tokens/s", "ratio")
    for result in results:
        shown.add_row(result["name"], str(result["tokens_per_second"]), f"{result['ratio']:.2f}")
    return shown


def training(bench: Bench, larger: Bench) -> Iterator[Result]:
    """All ratios; the one against the floor on a model large enough for it to mean something."""
    bench.theirs(Mix(bench.groups(["mixed"]), 8))  # the first step of a process pays for imports
    yield no_waste(bench)
    yield wasteful(bench)
    yield from long_demonstration(bench)
    yield over_floor(larger)
    yield rank_imbalance(bench)
    yield doubling(bench)


def model_for_floor(path: str, folder: str) -> str:
    """The model itself, or a random one of 31M parameters with its tokenizer if it is small."""
    model = AutoModelForCausalLM.from_pretrained(path)
    if model.num_parameters() >= FLOOR_PARAMETERS:
        return path
    tokenizer = AutoTokenizer.from_pretrained(path)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=9,
        num_attention_heads=8,
        num_key_value_heads=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def table(results: Sequence[Result]) -> Table:
    """A rich table with one row a ratio."""
    shown = Table("name", "what", "ratio", "goal", "holds", "tokens", "beside")
    for result in results:
        memory = f" ({result.more['memory_ratio']:.2f})" if "memory_ratio" in result.more else ""
        holds = "yes" if result.holds else "[red]no[/red]"
        ratio = f"{result.ratio:.2f}{memory}"
        shown.add_row(
            result.name, result.what, ratio, f"{result.goal:.2f}", holds, str(result.tokens), str(result.other_tokens)
        )
    return shown


def quiet() -> None:
    """Keep what is said of every new trainer from a screen that shall show results."""
    transformers_logging.disable_progress_bar()
    # Of TRL's rollout_func, and of the profiler's start and stop.
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "KINETO_LOG_LEVEL": "99"}


def benchmark(args: BenchmarkArguments) -> list[dict[str, Any]]:
    """Measure, print a table, and return what goes into the JSON file."""
    quiet()
    path = resolve_model(args.model)
    bench = Bench(path, args.model, args.length, args.repeats, args.dtype)
    if args.part == "generation":
        speeds = list(generation(bench))
        Console().print(generation_table(speeds))
        return speeds
    results = []
    with tempfile.TemporaryDirectory() as folder:
        larger = replace(bench, model=model_for_floor(path, folder))
        if larger.model != path:
            larger.name = "random Qwen2 of 31M parameters"
        for result in training(bench, larger):
            results.append(result)
            print(f"{result.name}: {result.ratio:.3f}", file=sys.stderr, flush=True)
    Console().print(table(results))
    return [{key: value for key, value in asdict(each).items() if key != "more"} | each.more for each in results]


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl benchmark`."""
    prog = "hpt-trl benchmark"
    with user_errors(prog):
        (args,) = parse((BenchmarkArguments,), argv, prog)
        results = benchmark(args)
        if args.json:
            Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
