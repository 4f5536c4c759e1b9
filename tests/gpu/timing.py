"""Time and memory of the training part, HPTTrainer beside GRPOTrainer, and the floor of both."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hpt_trl.profiling.ratios import Bench, cost_ratio, costs_in_turns
from hpt_trl.profiling.workload import StepCost, StepSpec, synchronized_time
from tests.gpu.equality import free_memory
from tests.gpu.setting import Check, Finding, Setting, at_most

# Eight prompts each, and the goal for HPT / GRPO. Lengths are the same in all of them, so one GRPO step serves all.
MIXES: dict[str, tuple[list[str], float | None]] = {
    "no waste": (["mixed"] * 8, 1.02),
    "half unsolved": (["none"] * 4 + ["mixed"] * 4, None),
    "half unsolved, a quarter all solved": (["none"] * 4 + ["all"] * 2 + ["mixed"] * 2, 0.35),
    "three quarters silent": (["all"] * 6 + ["mixed"] * 2, None),
}
OVER_FLOOR = ("no waste", "half unsolved, a quarter all solved")
FLOOR_GOAL = 1.15
STEPS = 2  # the first one compiles kernels and fills the allocator's cache


def matrix_rate(device: str, size: int) -> float:
    """Floating-point operations per second of a large product of bf16 matrices: what the chip reaches in practice."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rounds = 10
    for _ in range(3):
        left @ right
    begin = synchronized_time(left.device)
    for _ in range(rounds):
        left @ right
    return rounds * 2 * size**3 / (synchronized_time(left.device) - begin)


def operations(model: str, spec: StepSpec, tokens: int) -> float:
    """Operations of forward and backward passes over some tokens, without recomputation.

    Six per weight and token, the input embedding excluded; and attention over half of the square of the mean length.
    """
    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    head = empty.get_output_embeddings().weight
    embedding = empty.get_input_embeddings().weight
    weights = empty.num_parameters() - (0 if embedding is head else embedding.numel())
    rows = [group.prompt_length + length for group in spec.groups for length in group.rollout_lengths]
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(rows) / len(rows)
    return tokens * (6 * weights + attention)


def timed_costs(
    bench: Bench, rows_per_micro_batch: int, mixes: Sequence[str]
) -> tuple[dict[str, list[StepCost]], StepSpec]:
    """Costs by name of GRPO's step, of HPT's on each mix, and of the floors."""
    specs = {name: StepSpec(bench.groups(MIXES[name][0]), rows_per_micro_batch) for name in mixes}
    steps: dict[str, Callable[[], StepCost]] = {"GRPO": partial(bench.grpo_step, specs[mixes[0]], True)}
    for name, spec in specs.items():
        steps[name] = partial(bench.hpt_step, spec, True)
        if name in OVER_FLOOR:
            steps[f"floor of {name}"] = partial(bench.floor, spec, rows_per_micro_batch)
    freeing = [partial(_after_freeing, step) for step in steps.values()]
    return dict(zip(steps, costs_in_turns(freeing, bench.repeats))), specs[mixes[0]]


def _after_freeing(step: Callable[[], StepCost]) -> StepCost:
    free_memory()
    return step()


def training_part(setting: Setting, name: str, mixes: Sequence[str]) -> Iterator[Finding]:
    """Ratios, tokens per second and the share of the chip's rate, of one model."""
    options = {"bf16": setting.device == "cuda", "max_steps": STEPS}
    bench = Bench(setting.model(name), name, setting.sizes.length, setting.sizes.repeats[name], "float32", options)
    costs, spec = timed_costs(bench, setting.sizes.rows_per_micro_batch[name], mixes)
    rate = matrix_rate(setting.device, setting.sizes.matrix)
    for mix in mixes:
        ratio, memory = cost_ratio(costs[mix], costs["GRPO"]), _peak(costs[mix]) / _peak(costs["GRPO"])
        goal = MIXES[mix][1] if setting.device == "cuda" else None
        yield at_most(f"{name}, {mix}: training part, HPT / GRPO", ratio.value, goal, **_speeds(costs[mix]))
        yield at_most(f"{name}, {mix}: peak memory, HPT / GRPO", memory, None, peak_gb=_peak(costs[mix]) / 1e9)
        if mix in OVER_FLOOR:
            floor = cost_ratio(costs[mix], costs[f"floor of {mix}"])
            goal = FLOOR_GOAL if setting.device == "cuda" else None
            yield at_most(f"{name}, {mix}: training part, HPT / floor", floor.value, goal)
    for trainer in ("GRPO", "no waste", "floor of no waste"):
        seconds = median(cost.training_seconds for cost in costs[trainer])
        share = operations(bench.model, spec, costs[trainer][0].tokens) / seconds / rate
        more = _speeds(costs[trainer]) | {"bf16_matrix_tflops": rate / 1e12}
        yield at_most(f"{name}, {trainer}: share of the chip's bf16 rate", share, None, **more)


def _peak(costs: Sequence[StepCost]) -> int:
    return max(cost.peak_bytes for cost in costs)


def _speeds(costs: Sequence[StepCost]) -> dict[str, float]:
    seconds = median(cost.training_seconds for cost in costs)
    return {"seconds": seconds, "tokens": costs[0].tokens, "tokens_per_second": costs[0].tokens / seconds}


def small_model(setting: Setting) -> Iterator[Finding]:
    """All mixes on the small model."""
    yield from training_part(setting, "0.5b", list(MIXES))


def large_model(setting: Setting) -> Iterator[Finding]:
    """The mixes with a floor on the large model."""
    yield from training_part(setting, "1.5b", OVER_FLOOR)


SMALL: tuple[Check, ...] = (small_model,)
LARGE: tuple[Check, ...] = (large_model,)
