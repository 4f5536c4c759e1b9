"""The comparison on miniature models: methods, budgets, runs and report."""

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from hpt_trl.commands.compare import main
from hpt_trl.comparison import plan
from hpt_trl.comparison.budgets import TokenCounter
from hpt_trl.comparison.figures import alone_counts, pass_share
from hpt_trl.comparison.held_out_eval import HeldOutEval, accuracy_reward, is_correct
from hpt_trl.comparison.methods import ABLATIONS, METHODS, Phase, Recipe, build_trainer
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.regimes import REGIMES, with_few_demonstrations
from hpt_trl.comparison.report import tables_text, write_report
from hpt_trl.comparison.runs import Run, run_settings
from hpt_trl.comparison.sampler import sample
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.comparison.statistics import holm, interval, paired_p
from hpt_trl.miniature import MODEL_PATH, bases
from hpt_trl.miniature.families import SUITES, training_rows
from hpt_trl.verifier.verdicts import judge


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_PATH)


@pytest.fixture
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL_PATH)


def test_interval_and_paired_test_by_hand():
    # Mean 2, variance 1, standard error sqrt(1 / 3) = 0.57735, t with 2 degrees of freedom 4.30265: half width 2.48414.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - 2.48414, 2.0 + 2.48414), abs=1e-4)
    # t = 2 / 0.57735 = 3.4641; two-sided p with 2 degrees of freedom: 1 - t / sqrt(t^2 + 2) = 0.07418.
    assert paired_p([1.0, 2.0, 3.0]) == pytest.approx(0.07418, abs=1e-5)
    assert math.isnan(paired_p([1.0]))
    # 2 / 320 and 0.4 - 0.39375 are equal up to rounding.
    assert math.isnan(paired_p([2 / 320, 0.4 - 0.39375]))


def test_holm_by_hand():
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 = 0.03, 0.06, 0.04; none may be smaller than the one before: 0.06.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    # NaN does not count as a comparison.
    assert holm({"a": math.nan, "b": 0.01}) == pytest.approx({"a": math.nan, "b": 0.01}, nan_ok=True)


def test_pass_share_weights_suites_and_runs_equally():
    # Two samples: pass@1 of 1 correct is 1/2, of 2 is 1, of 0 is 0. Suite a: 3/4, suite b: 0. Mean 3/8.
    runs = [{"a": [1, 2], "b": [0]}]
    assert pass_share(runs, ["a", "b"], samples=2, k=1) == pytest.approx(3 / 8)
    assert pass_share(runs, ["a"], samples=2, k=2) == 1.0


def test_removing_finished_rows_does_not_change_the_others(model, tokenizer):
    prompts = [row["prompt"] for row in HeldOutEval(6, 1, 1.0).rows]
    # At this temperature the most likely token is always sampled.
    samples = sample(model, tokenizer, prompts, temperature=1e-4, max_new_tokens=40, seed=0, batch_size=20)
    for prompt, completion in zip(prompts, samples):
        ids = tokenizer(prompt, return_tensors="pt")
        alone = model.generate(**ids, do_sample=False, max_new_tokens=40)[0, ids["input_ids"].size(1) :]
        assert completion.text == tokenizer.decode(alone, skip_special_tokens=True)
        assert completion.tokens == len(alone)
    assert len({completion.tokens for completion in samples}) > 1


def test_exact_comparison_agrees_with_the_verifier():
    answers = [r"\boxed{7}", r"\boxed{07}", r"\boxed{8}", "7", r"\boxed{8}\boxed{7}", r"\boxed{}", r"\boxed{7} <think>"]
    verdicts = [verdict == "right" for verdict in judge(answers, ["7"] * len(answers))]
    assert [is_correct(answer, "7") for answer in answers] == verdicts
    assert accuracy_reward(completions=answers[:3], solution=["7"] * 3) == [1.0, 1.0, 0.0]


def test_two_evaluations_share_no_problem():
    first, second = HeldOutEval(10, 1, 1.0), HeldOutEval(10, 1, 1.0, skip=10)
    assert not {row["prompt"] for row in first.rows} & {row["prompt"] for row in second.rows}


def trained(model, tokenizer, tmp_path, phase, steps=1):
    trainer = build_trainer(
        phase, Recipe(4, 2, steps), model, tokenizer, training_rows(8, 0), 1e-3, 0, tmp_path, callbacks=[]
    )
    trainer.args.max_steps = steps
    counter = TokenCounter(tokenizer.pad_token_id)
    counter.attach(model)
    trainer.train()
    return trainer, counter


def test_sft_counts_its_tokens_and_trains_on_answers_only(model, tokenizer, tmp_path):
    trainer, counter = trained(model, tokenizer, tmp_path, Phase("sft"), steps=2)
    rows = training_rows(8, 0)
    # Two steps of four prompts are one epoch; each demonstration ends with EOS, and `\boxed{` is one token.
    tokens = sum(len(tokenizer(row["prompt"] + row["demonstration"])["input_ids"]) + 1 for row in rows)
    assert (counter.forwarded, counter.backwarded, counter.compute) == (tokens, tokens, 3 * tokens)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] != -100).sum() < batch["attention_mask"].sum()
    assert all(row[row != -100][-1] == tokenizer.eos_token_id for row in batch["labels"])


def test_few_prompts_keep_their_demonstration_and_sft_trains_on_these(model, tokenizer, tmp_path):
    rows = with_few_demonstrations(training_rows(8, 0), 4, seed=1)
    assert sum(bool(row["demonstration"]) for row in rows) == 4
    assert rows == with_few_demonstrations(training_rows(8, 0), 4, seed=1)
    assert rows != with_few_demonstrations(training_rows(8, 0), 4, seed=2)
    trainer = build_trainer(Phase("sft"), Recipe(4, 2, 1), model, tokenizer, rows, 1e-3, 0, tmp_path, callbacks=[])
    assert len(trainer.train_dataset) == 4


def test_all_demonstrations_are_the_settings_of_earlier_runs():
    run = Run("main", "qwen2-small", "hpt", 11, 1e-4)
    assert "demonstrations" not in run_settings(run, CompareArguments())
    assert run_settings(run, CompareArguments(demonstrations=128))["demonstrations"] == 128
    with pytest.raises(ValueError, match="demonstrations must be from 1 to training_problems"):
        CompareArguments(demonstrations=1024)


def test_sft_weights_tokens_equally_however_the_step_is_split_into_micro_batches(tokenizer, tmp_path):
    rows = [{"prompt": row["prompt"], "completion": row["demonstration"]} for row in training_rows(4, 0)]
    weights = []
    for rows_per_micro_batch, micro_batches in ((4, 1), (1, 4)):
        model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
        config = SFTConfig(
            str(tmp_path), per_device_train_batch_size=rows_per_micro_batch, gradient_accumulation_steps=micro_batches,
            max_steps=1, completion_only_loss=True, optim="sgd", learning_rate=1e-2, use_cpu=True, bf16=False,
            report_to="none", gradient_checkpointing=False,
        )  # fmt: skip
        SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    initial = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    before = torch.cat([parameter.flatten() for parameter in initial.parameters()])
    # Only rounding error relative to the update. With equal weights per row, the updates would differ by a tenth.
    assert (weights[0] - weights[1]).abs().max() < 1e-3 * (weights[0] - before).abs().max()


@pytest.mark.parametrize("method", ["grpo", "luffy", "srft", "chord", "hpt"])
def test_methods_train_and_count_generated_tokens(method, model, tokenizer, tmp_path):
    before = [parameter.clone() for parameter in model.parameters()]
    (phase,) = METHODS[method].phases
    _, counter = trained(model, tokenizer, tmp_path, phase)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
    # At least eight rollouts are generated, and every backward pass follows a forward pass.
    assert counter.forwarded > counter.backwarded > 0


def test_failed_tasks_are_reported_and_their_traceback_is_in_the_log(tmp_path):
    def fails() -> None:
        raise RuntimeError("broken on purpose")

    succeeded: list[str] = []
    tasks = [Task("good", tmp_path / "good", lambda: None), Task("bad", tmp_path / "bad", fails)]
    failed = run_tasks(tasks, 2, succeeded.append)
    assert ([task.name for task in failed], succeeded) == (["bad"], ["good"])
    assert "broken on purpose" in (tmp_path / "bad" / "log.txt").read_text()


def test_a_task_ends_when_its_parent_is_killed(tmp_path):
    def outlives() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(3600)

    context = multiprocessing.get_context("fork")
    parent = context.Process(target=run_tasks, args=([Task("task", tmp_path / "task", outlives)], 1, print))
    parent.start()
    wait_until((tmp_path / "pid").exists)
    task = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.kill()
    wait_until(lambda: not task.is_running() or task.status() == psutil.STATUS_ZOMBIE)


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.05)


def test_different_methods_have_different_settings():
    args = CompareArguments(**SMALL)
    settings = [run_settings(Run("ablation", "qwen2-small", name, 1, 1e-3), args)["phases"] for name in ABLATIONS]
    assert len({json.dumps(phases) for phases in settings}) == len(ABLATIONS)


def test_ablations_gates_by_hand():
    recipe, rates = Recipe(16, 8, 60), torch.tensor([0.0, 1 / 8, 2 / 8, 3 / 8])
    (off_policy,), (mixed,) = ABLATIONS["arm_off_policy"].phases, ABLATIONS["arm_mixed"].phases
    # Rows: rollouts, SFT, off-policy. Off-policy has the weight 1/8 that `sft_weight` gives to HPT's SFT.
    weights = torch.stack(tuple(off_policy.make_gate(recipe)(rates, 0)))
    assert weights.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [1 / 8, 0, 0, 0]]
    weights = torch.stack(tuple(mixed.make_gate(recipe)(rates, 0)))
    assert weights.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 1 / 8, 1 / 8, 0]]
    assert mixed.options["sft_weight"] == 1 / 8


def test_the_search_selects_the_best_learning_rate_of_each_method_and_size():
    def result(accuracy: float) -> dict:
        return {"curve": [{"accuracy": dict.fromkeys(SUITES, accuracy)}] * 2}

    results = {
        Run("search", "qwen2-small", "sft", 101, rate): result(accuracy)
        for rate, accuracy in ((1e-3, 0.2), (1e-2, 0.1))
    }
    assert plan.best_rates(results, ["sft"]) == {("64", "sft"): 1e-3}


def test_solved_alone_by_hand():
    # Two samples per problem, one correct is half. Only SFT solves the first problem, only HPT the second, and HPT and
    # the base model the third.
    right = {"base": "002", "sft": "200", "hpt": "012"}
    runs = [
        {"run": {"stage": "main", "model": "m", "method": method, "seed": 1}, "right": {"compute": {"chain2": counts}}}
        for method, counts in right.items()
    ]
    summary = {"settings": {"methods": list(right), "test_samples": 2, "seeds": [1]}, "runs": runs}
    assert alone_counts(summary, "m") == {"sft": [1], "hpt": [1]}


SMALL = {
    "models": ["qwen2-small"], "methods": ["base", "sft", "hpt"], "seeds": [1, 2], "learning_rates": [1e-3],
    "steps": 2, "compute": 4000, "training_problems": 8, "prompts_per_step": 4, "num_generations": 2,
    "test_problems": 2, "test_samples": 2, "pass_problems": 2, "pass_samples": 4, "curve_problems": 2,
    "curve_points": 1, "ablations": False, "textbook": True, "regimes": ["wrong_all"], "processes": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["gpt5"]}, "models must be from"),
        ({"methods": ["sft_grpo"]}, "sft_grpo: begins with SFT at SFT's learning rate. Add sft to methods"),
        ({"methods": ["flat_hpt", "grpo"]}, "flat_hpt: begins with SFT"),
        ({"regimes": ["many"]}, r"regimes must be from .*, got \['many'\]"),
        ({"regimes": ["exact_16"]}, r"exact_16: has more demonstrations than training_problems \(8\)"),
        ({"search_seeds": [1]}, "must not contain any of search_seeds"),
        ({"training_problems": 2}, "must fill a step"),
    ],
)
def test_invalid_settings_are_rejected(changes, message):
    with pytest.raises(ValueError, match=message):
        CompareArguments(**SMALL | changes)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A complete comparison run by the command itself, on a base model trained for six steps."""
    folder = tmp_path_factory.mktemp("compare")
    config = folder / "config.yaml"
    config.write_text(json.dumps(SMALL | {"output_dir": str(folder), "regimes": ["wrong_all", "weak_128"]}))
    base = bases.Base("qwen2", 64, 1, 4, 2, dict.fromkeys(SUITES, 0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bases.BASES, "qwen2-small", base)
        patch.setitem(bases.BASES, "qwen2-weak", replace(base, skill_steps=2))
        patch.setitem(REGIMES, "weak_128", replace(REGIMES["weak_128"], demonstrations=4))
        main(["--config", str(config)])
        results = sorted((folder / "runs").rglob("result.json"))
        times = [path.stat().st_mtime_ns for path in results]
        results[0].unlink()
        left_behind = results[0].parent / "trainer" / "checkpoint-1"  # as a run that was killed
        left_behind.mkdir(parents=True)
        main(["--config", str(config)])
        again = [path.stat().st_mtime_ns for path in results]
        with pytest.raises(SystemExit):
            main(["--config", str(config), "--steps", "3"])
    assert not left_behind.exists()
    return folder, times, again


def test_finished_runs_are_not_repeated(compared):
    _, times, again = compared
    # A search for two methods, three methods with two seeds, two of these on textbook demonstrations and in a regime,
    # and all in the regime with another base.
    assert len(times) == 2 + 3 * 2 + 2 * 2 + 2 * 2 + 3 * 2
    assert again[0] > times[0]
    assert again[1:] == times[1:]


def test_the_report_is_made_from_the_summary_only(compared, tmp_path):
    folder: Path = compared[0] / "report_map"
    summary = json.loads((folder / "summary.json").read_text())
    report = (folder / "report.md").read_text()
    assert report.startswith(tables_text(summary))
    assert [path.name for path in folder.glob("*.png")] == ["map.png"]
    assert "## The map" in report
    main_runs = [entry for entry in summary["runs"] if not entry["run"]["stage"].startswith("map/")]
    text = write_report(summary | {"runs": main_runs}, tmp_path).read_text()
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert {"accuracy.png", "pass_at_k.png", "solve_rates.png", "demonstrations.png"} <= figures
    assert "## Equal compute" in text
    assert "## The map" not in text
    for entry in summary["runs"]:
        if entry["run"]["stage"] == "main" and entry["run"]["method"] != "base":
            assert entry["spent"]["steps"]["step"] == 2
            # The run stopped at the first step that reached the budget.
            costs = entry["spent"]["compute"]
            assert 4000 <= costs["compute"] < 4000 + 2 * costs["compute"] / costs["step"]
