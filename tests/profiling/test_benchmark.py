"""The tokens and bytes that `hpt-trl benchmark` measures. Times are too noisy to test."""

import json
from pathlib import Path

import pytest

from hpt_trl.commands.benchmark import BenchmarkArguments, main
from hpt_trl.profiling.ratios import Bench, doubling, long_demonstration, rank_imbalance
from hpt_trl.profiling.workload import Group, StepSpec, bare_step

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "notebooks" / "results" / "benchmark"
GUIDE = (ROOT / "notebooks" / "guides" / "performance.md").read_text()


@pytest.fixture
def bench(tiny_model):
    return Bench(tiny_model, "tiny", 32, 1, "float32")


def test_only_tokens_with_signal_are_computed(bench):
    # Two prompts of 10 tokens with 2 rollouts of 20: one mixed, one unsolved, with a demonstration of 30.
    groups = [Group(10, [20, 20], [1.0, 0.0]), Group(10, [20, 20], [0.0, 0.0], 30)]
    spec = StepSpec(groups, 4)
    assert bench.grpo_step(spec).tokens == 4 * (10 + 20)
    assert bench.hpt_step(spec).tokens == 2 * (10 + 20) + (10 + 30) == bare_step(bench.model, spec).tokens


def test_two_ranks_compute_equally_many_tokens(bench):
    result = rank_imbalance(bench)
    assert result.ratio <= 1.10
    assert result.holds


def test_memory_of_a_long_demonstration_and_under_a_token_budget(bench):
    results = {result.name: result for result in long_demonstration(bench)}
    assert results["long_demonstration_memory"].ratio <= 0.6
    assert doubling(bench).more["memory_ratio"] <= 1.05


def test_invalid_options_are_rejected(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--part", "everything"])
    assert "part must be one of" in capsys.readouterr().err
    with pytest.raises(ValueError, match="does not exist"):
        BenchmarkArguments(json=str(tmp_path / "gone" / "out.json"))
    assert BenchmarkArguments(quick=True).repeats == 3


@pytest.mark.parametrize("part", ["training", "generation"])
def test_the_ratios_in_the_guide_are_the_committed_ones(part):
    results = json.loads((RESULTS / f"{part}.json").read_text())
    for result in results:
        goal = f" | {result['goal']:.2f}" if part == "training" else f" | {result['tokens_per_second']:.0f}"
        assert f"| {result['name']} | {result['ratio']:.2f}{goal} |" in GUIDE


def test_committed_ratios_meet_their_goals():
    results = json.loads((RESULTS / "training.json").read_text())
    assert [result["name"] for result in results] == [
        "no_waste", "wasteful", "wasteful_vllm", "long_demonstration_time", "long_demonstration_memory", "over_floor",
        "rank_imbalance", "warmup_step", "doubling",
    ]  # fmt: skip
    for result in results:
        assert result["ratio"] <= result["goal"]
        assert result["holds"]
    assert results[-1]["memory_ratio"] <= 1.05
