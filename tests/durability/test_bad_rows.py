"""No bad row, record or character ends a run, or it ends in one paragraph."""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset, IterableDataset

from hpt_trl.commands.report import write_report
from hpt_trl.common.errors import RunError
from hpt_trl.evaluation.score_table import plot_scores
from hpt_trl.evaluation.scores import Estimate, SuiteScore
from hpt_trl.monitoring.run_log import LOG_NAME, RUN_NAME
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES
from hpt_trl.monitoring.samples import read_samples, shortened
from hpt_trl.report.page import render
from hpt_trl.report.run_folder import read_run
from tests.tiny import ROWS, make_trainer, parameters, parity_reward


def stream(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    trainer = make_trainer(tiny_model, tmp_path_factory.mktemp("run"))
    trainer.train()
    return Path(trainer.args.output_dir)


@pytest.mark.parametrize(
    "demonstration",
    [5, 1.5, True, b"so 2", ["so", "2"], [None], {"role": "assistant", "content": 5}, {"content": [b"2"]}, "so \ud800"],
    ids=repr,
)
def test_a_demonstration_of_any_type_in_a_stream_ends_no_run(tiny_model, tmp_path, demonstration):
    rows = [dict(row) for row in ROWS]
    rows[5]["demonstration"] = demonstration
    # A gate that asks for every demonstration.
    trainer = make_trainer(tiny_model, tmp_path, rows=stream(rows), gate_threshold=1.0, gate_success_value=2.0)
    assert trainer.train().global_step == 3
    counts = [entry["demonstrations/refused"] + entry["demonstrations/missing"] for entry in trainer.state.log_history
              if "demonstrations/refused" in entry]  # fmt: skip
    assert counts == [0, 1, 0]  # rows 4 to 7 belong to the second step


def test_prompts_of_any_type_in_a_stream_end_no_run_and_change_nothing_else(tiny_model, tmp_path, caplog):
    good = [dict(row) for row in ROWS]
    bad = [{**good[0], "prompt": prompt} for prompt in (5, b"1", None, "\ud800", "", [None], ["a"], {"a": 1})]
    mixed = [*bad[:3], *good[:6], *bad[3:], {"prompt": "1+1"}, *good[6:]]
    ends = []
    for name, rows in {"good": good, "mixed": mixed}.items():
        trainer = make_trainer(tiny_model, tmp_path / name, rows=stream(rows))
        trainer.train()
        ends.append(parameters(trainer))
    assert torch.equal(*ends)
    assert "Dropped rows of the stream: 1 rows because its prompt is of type int; " in caplog.text


def test_a_stream_without_a_usable_row_is_an_error_that_counts_them(tiny_model, tmp_path):
    rows = [{**row, "prompt": None} for row in ROWS]
    with pytest.raises(RunError, match=r"No step was made.* Dropped rows of the stream: 16 rows because its prompt is"):
        make_trainer(tiny_model, tmp_path, rows=stream(rows)).train()


def test_a_missing_prompt_in_data_that_can_be_searched_is_refused_before_the_run(tiny_model, tmp_path):
    rows = Dataset.from_list([*ROWS, {**ROWS[0], "prompt": None}])
    with pytest.raises(ValueError, match=r"1 of 17 prompts of the training data cannot be tokenized.* is missing\."):
        make_trainer(tiny_model, tmp_path, rows=rows)


@pytest.mark.parametrize("rows", [[], [dict(ROWS[0])]], ids=["empty", "too short"])
def test_a_stream_that_is_empty_or_too_short_is_an_error(tiny_model, tmp_path, rows):
    with pytest.raises((RunError, ValueError), match=r"fewer rows|no rows|empty"):
        make_trainer(tiny_model, tmp_path, rows=stream(rows)).train()


def test_an_empty_prompt_is_named(tiny_model, tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[1]["prompt"] = ""
    with pytest.raises(RunError, match=r"At step 0, a prompt is empty\. Remove such rows"):
        make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows)).train()


@pytest.mark.parametrize("column", ["completions", "prompts", "trainer_state"])
def test_a_column_named_like_an_argument_of_reward_functions_is_refused(tiny_model, tmp_path, column):
    with pytest.raises(ValueError, match=f"columns \\['{column}'\\], which are also arguments"):
        make_trainer(tiny_model, tmp_path, rows=ROWS.add_column(column, ["x"] * len(ROWS)))


def test_a_reward_function_that_the_columns_do_not_fit_is_refused_before_the_run(tiny_model, tmp_path):
    def needs_an_answer(completions, answer, **kwargs):
        return [0.0] * len(completions)

    def takes_too_little(completions, solution):
        return [0.0] * len(completions)

    for reward, problem in ((needs_an_answer, "missing a required argument: 'answer'"), (takes_too_little, "got an")):
        with pytest.raises(ValueError, match=f"The reward function '{reward.__name__}' cannot be called: {problem}"):
            make_trainer(tiny_model, tmp_path, reward=reward)


@pytest.mark.parametrize("content", ["{", "[]\n", '{"completion": 5}\n', "\0\0", "null\n"])
def test_broken_samples_of_an_older_run_end_no_run(tiny_model, tmp_path, run, content):
    (tmp_path / "_record").mkdir()
    (tmp_path / SAMPLES).write_text(content)
    make_trainer(tiny_model, tmp_path, max_steps=1).train()
    expected = [sample for sample in read_samples(run / SAMPLES) if sample.step == 0]
    assert read_samples(tmp_path / SAMPLES) == expected != []


def test_broken_samples_of_a_resumed_run_are_lost_with_a_warning(tiny_model, tmp_path, caplog):
    make_trainer(tiny_model, tmp_path, max_steps=2, save_strategy="steps", save_steps=1).train()
    (tmp_path / SAMPLES).write_text("broken\n")
    shutil.rmtree(tmp_path / "checkpoint-2")
    trainer = make_trainer(tiny_model, tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train(True)
    assert "The samples of earlier steps are lost" in caplog.text
    assert {sample.step for sample in read_samples(tmp_path / SAMPLES)} == {1}


def test_surrogates_in_what_reward_functions_log_end_no_run(tiny_model, tmp_path):
    def strange(completion_ids, log_extra, **kwargs):
        log_extra("note", ["\ud800 \udfff"] * len(completion_ids))
        log_extra("mixed", [1, "a", None, [b"b"]] * (len(completion_ids) // 4))
        return parity_reward(completion_ids)

    # TRL's table of completions is printed and written as well.
    make_trainer(tiny_model, tmp_path, reward=strange, max_steps=1, log_completions=True).train()
    table = pd.read_parquet(next((tmp_path / "completions").glob("*.parquet")))
    assert set(table["note"]) == {"\\ud800 \\udfff"}
    assert set(table["mixed"].dropna()) == {"1", "a", "[b'b']"}
    assert read_samples(tmp_path / SAMPLES)[0].notes["note"] == "\\ud800 \\udfff"
    assert shortened("é\U0001f600") == "é\U0001f600"


FOREIGN = {
    "log of lists": (LOG_NAME, json.dumps({"step": 1, "loss": [1, 2], "reward": {"a": 1}}) + "\n"),
    "steps as texts": (LOG_NAME, json.dumps({"step": "one", "loss": 1.0}) + "\n"),
    "run.json is a list": (RUN_NAME, "[]"),
    "config is a text": (RUN_NAME, '{"config": "text"}'),
    "run.json is not UTF-8": (RUN_NAME, "\udcff"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_report_is_made_of_records_with_foreign_types(run, tmp_path, name):
    folder = Path(shutil.copytree(run, tmp_path / "run $(date)_$USER"))
    file, content = FOREIGN[name]
    (folder / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "<html" in render([read_run(folder), read_run(run)])


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_folder_of_any_name_gets_its_report_and_its_figures(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9 $(date)_$USER |`<script>\n")
    shutil.copytree(Path(__file__).parents[1] / "fixtures" / "run_0_1_0", folder)
    page = write_report([read_run(folder)] * 2, tmp_path / "report")
    assert "<h1>caf\\udce9 $(date)_$USER |`&lt;script&gt;\n</h1>" in page.read_text(encoding="utf-8")
    assert (tmp_path / "report" / "reward.png").stat().st_size > 0


def test_a_gate_history_of_another_program_is_ignored_with_a_note(run, tmp_path):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    for table in (pd.DataFrame({"a": [1]}), None):
        if table is None:
            (folder / "gate.parquet").write_bytes(bytes(100))
        else:
            table.to_parquet(folder / "gate.parquet")
        read = read_run(folder)
        assert read.gate is None
        assert "gate.parquet is not a gate history and was ignored." in read.notes
        assert "<html" in render([read])


@pytest.mark.parametrize(
    "entry",
    [{"step": "x"}, {"rewards": []}, {"notes": 5}, {"solve_rate": "high"}, {"prompt": 5}, {"rewards": {"a": "b"}}],
    ids=repr,
)
def test_samples_of_other_types_are_an_error_in_one_paragraph(run, tmp_path, entry):
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    sample = {"step": 1, "prompt": "p", "completion": "c"} | entry
    (folder / SAMPLES).write_text(json.dumps(sample) + "\n")
    with pytest.raises(ValueError, match="was not written by a run"):
        read_run(folder)


def test_a_name_with_dollars_is_drawn(tmp_path):
    estimate = Estimate(0.5, 0.4, 0.6)
    score = SuiteScore("sums $(date)_$USER", "", [1, 3], 4, estimate, {2: estimate}, {}, 0, 0.0, 1.0)
    plot_scores({"sums": score}, tmp_path / "scores.png", "ckpt_$(date)_$USER")
    assert (tmp_path / "scores.png").stat().st_size > 0
