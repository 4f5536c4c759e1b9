"""The tokens and bytes that `hpt-trl benchmark` measures. Times are too noisy to test."""

import json
from io import StringIO
from pathlib import Path

import pytest
from peft import LoraConfig
from rich.console import Console
from transformers import AutoConfig, Gemma3Config, GPT2Config, Qwen2Config, T5Config

from hpt_trl.commands.benchmark import BenchmarkArguments, benches, main, training_table
from hpt_trl.miniature.build import build_tokenizer
from hpt_trl.profiling.chart import draw_ratios
from hpt_trl.profiling.floor import floor_step
from hpt_trl.profiling.models import save_random_model
from hpt_trl.profiling.ratios import (
    Bench,
    doubling,
    long_demonstration,
    longest_row,
    no_waste,
    over_floor,
    rank_imbalance,
)
from hpt_trl.profiling.workload import Group, StepSpec

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
    assert bench.hpt_step(spec).tokens == 2 * (10 + 20) + (10 + 30)
    # The floor has rows of (40 + 30) / 2 tokens in one pass and one row of 30 in the other.
    assert floor_step(bench.model, spec, rows_per_pass=2).tokens == 2 * 35 + 30


def test_the_floor_has_the_same_tokens_in_batches_without_padding(bench):
    single, floor = over_floor(bench)
    assert (single.name, single.goal) == ("over_single_rows", 1.15)
    assert (floor.name, floor.goal, floor.holds) == ("over_floor", None, True)
    # 16 rollouts and 4 demonstrations, each rounded by half a token at most.
    assert abs(floor.other_tokens - single.other_tokens) <= 20 / 2
    assert single.other_tokens < floor.tokens == single.tokens
    with StringIO() as output:
        Console(file=output, width=200).print(training_table([floor]))
        assert [cell.strip() for cell in output.getvalue().splitlines()[3].split("│")][4:6] == ["-", "-"]


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
    with pytest.raises(ValueError, match=r"must end in .png"):
        BenchmarkArguments(figure=str(tmp_path / "ratios.txt"))
    assert BenchmarkArguments(quick=True).repeats == 3


def save_config(folder, config):
    config.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def test_any_config_is_measured_with_random_weights(tmp_path):
    # Learned positions: rows longer than 64 tokens would be an error.
    gpt2 = GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=2, n_head=2, eos_token_id=1)
    args = BenchmarkArguments(save_config(tmp_path / "gpt2", gpt2), length=16, repeats=1)
    bench, larger = benches(args, str(tmp_path))
    assert AutoConfig.from_pretrained(bench.model).n_positions == longest_row(16) == 16 * 16 + 64
    assert (bench.name, larger.name) == (args.model, "random Qwen2 of 31M parameters")
    long_row = Group(20, [longest_row(16) - 64, 16], [1.0, 0.0], 16)
    assert bench.hpt_step(StepSpec([long_row], 2)).tokens > longest_row(16) - 64
    result = no_waste(bench)
    assert result.tokens < result.other_tokens  # rows are cut to their length


def test_adapters_quantized_models_and_those_with_images_have_a_language_model(tmp_path):
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    quantized = Qwen2Config(**sizes, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    base = save_config(tmp_path / "base", quantized)
    LoraConfig(base_model_name_or_path=base, task_type="CAUSAL_LM").save_pretrained(tmp_path / "adapter")
    save_config(tmp_path / "images", Gemma3Config(text_config=sizes))
    expected = {"base": "qwen2", "adapter": "qwen2", "images": "gemma3_text"}
    for name, kind in expected.items():
        parameters = save_random_model(str(tmp_path / name), str(tmp_path / f"random_{name}"), "float32", 100)
        config = AutoConfig.from_pretrained(tmp_path / f"random_{name}")
        assert config.model_type == kind
        assert not hasattr(config, "quantization_config")
        assert 0 < parameters < 100_000


def test_an_encoder_decoder_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--model", save_config(tmp_path / "t5", T5Config(vocab_size=300, d_model=16))])
    assert stop.value.code == 2
    assert "encoder-decoder model (t5)" in capsys.readouterr().err


def test_the_figure_has_a_bar_for_every_ratio(tmp_path):
    results = json.loads((RESULTS / "training.json").read_text())
    draw_ratios(results, "training", tmp_path / "ratios.svg")
    draw_ratios(json.loads((RESULTS / "generation.json").read_text()), "generation", tmp_path / "speeds.png")
    assert (tmp_path / "ratios.svg").read_text().count('<path d="M') > len(results)
    assert (tmp_path / "speeds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("part", ["training", "generation"])
def test_the_ratios_in_the_guide_are_the_committed_ones(part):
    results = json.loads((RESULTS / f"{part}.json").read_text())
    for result in results:
        other = f"{result['tokens_per_second']:.0f}" if part == "generation" else "-"
        if result.get("goal") is not None:
            other = f"{result['goal']:.2f}"
        assert f"| {result['name']} | {result['ratio']:.2f} | {other} |" in GUIDE


def test_committed_ratios_meet_their_goals():
    results = json.loads((RESULTS / "training.json").read_text())
    assert [result["name"] for result in results] == [
        "no_waste", "wasteful", "wasteful_vllm", "long_demonstration_time", "long_demonstration_memory",
        "over_single_rows", "over_floor", "rank_imbalance", "warmup_step", "doubling",
    ]  # fmt: skip
    for result in results:
        assert result["goal"] is None or result["ratio"] <= result["goal"]
        assert result["holds"]
    assert results[-1]["memory_ratio"] <= 1.05
