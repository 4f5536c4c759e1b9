"""The SFT warm-up: plain cross-entropy before the gate acts, until the held-out loss is flat, resumed exactly."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl import HPTConfig
from hpt_trl.comparison.methods import METHODS
from hpt_trl.monitoring.progress_panel import ProgressPanel
from hpt_trl.monitoring.samples import SampleLog
from hpt_trl.report.charts import PANELS
from hpt_trl.report.run_folder import read_run
from hpt_trl.trainer.warmup import ScaledRate, SFTWarmup
from tests.durability.kill_and_resume import differences, log_without_times
from tests.tiny import ROWS, make_trainer, parameters, relative_error, step_gradient

MAIN_TABLE = Path(__file__).parents[2] / "notebooks" / "results" / "few_demonstrations" / "summary.json"
WARMUP = {"sft_warmup_steps": 3, "sft_warmup_holdout": 0.0, "max_steps": 5}


def cross_entropy_gradient(model_path, rows, per_token):
    """Gradient of a hand-made loop: mean over rows of token means, or mean over tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_path), AutoTokenizer.from_pretrained(model_path)
    losses, counts = [], []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["demonstration"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum"))
        counts.append(len(answer))
    loss = sum(losses) / sum(counts) if per_token else sum(a / b for a, b in zip(losses, counts)) / len(rows)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("normalization", ["prompt", "token"])
@pytest.mark.parametrize("demonstrated", [4, 3], ids=["one_per_prompt", "fewer_than_prompts"])
@pytest.mark.parametrize("options", [{}, {"gate": "off"}, {"algorithm": "luffy", "sft_weight": 0.3}])
def test_a_step_is_plain_cross_entropy_on_as_many_demonstrations_as_there_are_prompts(
    tiny_model, tmp_path, demonstrated, normalization, options
):
    rows = ROWS.map(
        lambda row, i: {"demonstration": row["demonstration"] if i < demonstrated else ""}, with_indices=True
    )
    gradient = step_gradient(
        tiny_model, tmp_path, rows=rows, sft_normalization=normalization, max_demonstration_length=64,
        **{**WARMUP, "max_steps": 1}, **options,
    )  # fmt: skip
    expected = cross_entropy_gradient(tiny_model, rows.select(range(demonstrated)), per_token=normalization == "token")
    assert relative_error(gradient, expected) < 1e-5


def test_nothing_is_generated_until_it_ends_and_the_log_says_so(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25, **WARMUP)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["hpt/warmup"] for entry in log] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert ["hpt/solve_rate" in entry for entry in log] == [False, False, False, True, True]
    assert [entry["time/generation"] > 0 for entry in log] == [False, False, False, True, True]
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert history[history.step < 3].solve_rate.isna().all()
    assert history[history.step < 3].groupby("step").size().tolist() == [4, 4, 4]


def test_its_learning_rate_scales_the_schedule(tiny_model, tmp_path):
    schedule = {"learning_rate": 1e-3, "lr_scheduler_type": "linear"}
    trainer = make_trainer(tiny_model, tmp_path / "own", sft_warmup_learning_rate=4e-3, **schedule, **WARMUP)
    trainer.train()
    logged = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx([4e-3, 3.2e-3, 2.4e-3, 0.4e-3, 0.2e-3])


def test_a_step_takes_its_learning_rate(tiny_model, tmp_path):
    step = {**WARMUP, "max_steps": 1, "lr_scheduler_type": "constant"}
    own = make_trainer(tiny_model, tmp_path / "own", learning_rate=1e-3, sft_warmup_learning_rate=4e-3, **step)
    same = make_trainer(tiny_model, tmp_path / "same", learning_rate=4e-3, **step)
    own.train()
    same.train()
    assert torch.equal(parameters(own), parameters(same))


def test_the_optimizer_begins_with_new_moments_after_it(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25, **WARMUP)  # 3 of 5 steps
    trainer.train()
    assert {int(state["step"]) for state in trainer.optimizer.optimizer.state.values()} == {2}


def test_a_scheduler_that_did_not_step_does_not_scale_twice():
    rate, group = ScaledRate(), {"lr": 1.0}
    rate.apply([group], 4.0)
    rate.apply([group], 4.0)
    assert group["lr"] == 4.0
    resumed = ScaledRate()
    resumed.load_state_dict(rate.state_dict())
    resumed.apply([group], 1.0)
    assert group["lr"] == 1.0
    group["lr"] = 0.5  # the scheduler steps
    resumed.apply([group], 1.0)
    assert group["lr"] == 0.5


def test_it_ends_when_the_held_out_loss_is_flat(tiny_model, tmp_path):
    # At this rate nothing is learned: flat after the first window.
    options = {"sft_warmup_steps": 20, "sft_warmup_window": 2, "sft_warmup_holdout": 0.25, "learning_rate": 1e-9}
    trainer = make_trainer(tiny_model, tmp_path, **options, max_steps=4)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["hpt/warmup"] for entry in log] == [1.0, 1.0, 0.0, 0.0]
    measured = [entry["hpt/held_out_nll"] for entry in log if "hpt/held_out_nll" in entry]
    assert len(measured) == 2
    held_out = trainer._warmup.held_out
    losses = [cross_entropy_of(tiny_model, row) for row in held_out]
    assert measured[0] == pytest.approx(sum(nll for nll, _ in losses) / sum(tokens for _, tokens in losses), rel=1e-4)


def cross_entropy_of(model_path, row):
    tokenizer, model = AutoTokenizer.from_pretrained(model_path), AutoModelForCausalLM.from_pretrained(model_path)
    prompt = tokenizer(row["prompt"])["input_ids"]
    answer = tokenizer(row["demonstration"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    answer = answer[:8]
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item(), len(answer)


def test_every_demonstration_is_seen_once_per_epoch_and_held_out_ones_never():
    args = HPTConfig("out", use_cpu=True, bf16=False, sft_warmup_steps=9, sft_warmup_holdout=0.25)
    rows = ROWS.map(lambda row, index: {"demonstration": "" if index < 4 else row["demonstration"]}, with_indices=True)
    warmup = SFTWarmup(args, rows, None)
    seen = [example["prompt"] for generation in range(3) for example in warmup.examples(generation, 3)]
    held_out = {row["prompt"] for row in warmup.held_out}
    assert (len(held_out), len(set(seen)), len(seen)) == (3, 9, 9)
    assert set(seen) | held_out == {row["prompt"] for row in rows.select(range(4, 16))}
    more = warmup.examples(0, 12)
    assert len({example["prompt"] for example in more[:9]}) == 9
    assert len(more) == 12  # the last three are padding


def test_a_demonstration_is_left_to_train_on():
    args = HPTConfig("out", use_cpu=True, bf16=False, sft_warmup_steps=9, sft_warmup_holdout=0.9)
    warmup = SFTWarmup(args, ROWS.select(range(2)), None)
    assert (len(warmup.training), len(warmup.held_out)) == (1, 1)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_it_resumes_exactly_inside_and_across_the_change(tiny_model, tmp_path, step, monkeypatch):
    monkeypatch.setattr("hpt_trl.trainer.warmup.TOLERANCE", 0.15)
    options = WARMUP | {"gate_threshold": 0.25, "save_strategy": "steps", "save_steps": 1, "shuffle_dataset": True}
    options |= {"lr_scheduler_type": "linear", "sft_warmup_learning_rate": 2e-3}
    options |= {"sft_warmup_steps": 9, "sft_warmup_window": 1, "sft_warmup_holdout": 0.25}
    ends = []
    for name, checkpoint in (("complete", None), ("resumed", str(tmp_path / "complete" / f"checkpoint-{step}"))):
        trainer = make_trainer(tiny_model, tmp_path / name, **options)
        trainer.train(checkpoint)
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        history = pd.read_parquet(Path(trainer.args.output_dir) / "gate.parquet")
        ends.append((state, log_without_times(trainer.state.log_history), history))
    assert differences(*ends) == []
    assert 0 < trainer._warmup.ended_at < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "sft"}, "needs an algorithm with rollouts"),
        ({"gate": "off", "rows": ROWS.remove_columns("demonstration")}, "No row of the training data has a demonstr"),
        ({"sft_warmup_steps": -1}, "sft_warmup_steps must be at least 0"),
        ({"sft_warmup_holdout": 1.5}, "it is a fraction"),
        ({"sft_warmup_learning_rate": 0.0}, "must be finite and above 0, got 0.0"),
    ],
)
def test_what_it_cannot_do_is_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, **(WARMUP | options))


def test_the_preset_is_what_the_main_comparison_measured():
    summary = json.loads(MAIN_TABLE.read_text())
    run = next(entry["run"] for entry in summary["runs"] if entry["run"]["method"] == "warmup_hpt" and entry["right"])
    common = {"use_cpu": True, "bf16": False, "max_steps": summary["settings"]["steps"]}
    args = HPTConfig("x", algorithm="warmup_hpt", learning_rate=run["learning_rate"], **common)
    assert args.algorithm == "hpt"
    assert args.sft_warmup_steps == METHODS["warmup_hpt"].phases[0].options["sft_warmup_steps"]
    assert args.sft_warmup_learning_rate == pytest.approx(run["first_learning_rate"])
    mine = HPTConfig("x", algorithm="warmup_hpt", sft_warmup_steps=5, sft_warmup_learning_rate=1e-3, **common)
    assert (mine.sft_warmup_steps, mine.sft_warmup_learning_rate) == (5, 1e-3)
    with pytest.raises(ValueError, match=r"at most half of max_steps on its SFT warm-up, got max_steps=-1: set it"):
        HPTConfig("x", algorithm="warmup_hpt", use_cpu=True, bf16=False)


def test_report_panel_and_card_mark_it(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25, **WARMUP)
    trainer.train()
    trainer.create_model_card()
    assert "trained on demonstrations only (SFT), for at most 3 optimizer steps" in (tmp_path / "README.md").read_text()
    figure, axes = plt.subplots()
    assert {panel.name: panel for panel in PANELS}["sources"].draw(axes, read_run(tmp_path))
    (line,) = [line for line in axes.lines if line.get_label() == "end of SFT warm-up"]
    assert set(line.get_xdata()) == {3}
    plt.close(figure)
    panel = ProgressPanel(SampleLog())
    panel._times = lambda: "0:01 elapsed"
    assert "SFT warm-up" in panel._summary({"loss": 1.0, "hpt/warmup": 1.0})
    assert "SFT warm-up" not in panel._summary({"loss": 1.0, "hpt/warmup": 0.0})
