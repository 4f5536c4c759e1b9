"""`hpt-trl prepare` as a user runs it: what it writes, what it prints, and what it leaves behind when it fails."""

import json
import sys

import pyarrow
import pyarrow.parquet
import pytest
from datasets import load_dataset

from hpt_trl.commands import cli
from hpt_trl.commands.train import _local_data
from tests.data import samples
from tests.data.test_preparation import BENCHMARK, MIXED


def call(monkeypatch, capsys, *argv):
    """Run the command in this process; returns exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["hpt-trl", "prepare", *map(str, argv)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, " ".join(captured.out.split()), captured.err


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return write(tmp_path / "in" / "train.jsonl", MIXED)


@pytest.fixture
def benchmark(tmp_path):
    (tmp_path / "suites").mkdir()
    return write(tmp_path / "suites" / "farm.jsonl", [{"problem": BENCHMARK, "answer": "43"}]).parent


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_data_and_report_are_written(source, benchmark, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out" / "ready.jsonl"
    code, printed, _ = call(monkeypatch, capsys, source, "--output", output, "--benchmarks", benchmark)
    assert code == 0
    assert "14 rows read, 4 kept, 10 refused." in printed
    assert "2 of the kept rows have no demonstration and are trained with RL only" in printed
    assert "1 refused: overlaps a benchmark (farm 1)" in printed
    assert "Not compared with gpqa: no file with this name in --benchmarks" in printed
    assert [row["demonstration"] for row in rows_of(output)] == ["\\boxed{2}", "", "", "now right: \\boxed{2}"]
    report = json.loads((tmp_path / "out" / "ready.jsonl.report.json").read_text())
    assert (report["read"], report["kept"], len(report["refused"])) == (14, 4, 10)
    assert report["read"] == report["kept"] + sum(entry["rows"] for entry in report["refused"].values())
    assert report["decontamination"]["problems_by_benchmark"] == {"farm": 1}
    assert report["settings"]["source"] == str(source)
    assert sorted(path.name for path in output.parent.iterdir()) == ["ready.jsonl", "ready.jsonl.report.json"]


def test_parquet_contains_the_same_rows(source, tmp_path, monkeypatch, capsys):
    for name in ("a.jsonl", "a.parquet"):
        assert call(monkeypatch, capsys, source, "--output", tmp_path / name, "--decontaminate", "false")[0] == 0
    rows = load_dataset("parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path))
    assert list(rows) == rows_of(tmp_path / "a.jsonl")
    assert len(rows) == 5  # without decontamination, the benchmark problem is kept


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_file_format_gives_the_same_rows(tmp_path, monkeypatch, capsys, kind):
    rows = [{"problem": f"{n}+1", "solution": f"ä \\boxed{{{n + 1}}}", "answer": str(n + 1)} for n in range(3)]
    path = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif kind == "csv":
        path.write_text("problem,solution,answer\r\n" + "".join(",".join(row.values()) + "\r\n" for row in rows))
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "\r\n".join(map(json.dumps, rows)))
    output = tmp_path / "out.jsonl"
    assert call(monkeypatch, capsys, path, "--output", output, "--decontaminate", "false")[0] == 0
    assert [(row["demonstration"], row["solution"]) for row in rows_of(output)] == [
        ("ä \\boxed{1}", "1"),
        ("ä \\boxed{2}", "2"),
        ("ä \\boxed{3}", "3"),
    ]


def test_streaming_equals_not_streaming(source, benchmark, tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        flags = ["--streaming"] if name == "b" else []
        output = tmp_path / f"{name}.jsonl"
        assert call(monkeypatch, capsys, source, "--output", output, "--benchmarks", benchmark, *flags)[0] == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("dash", ["-", "_"])
def test_columns_are_named_with_dashes_or_underscores(tmp_path, monkeypatch, capsys, dash):
    source = write(tmp_path / "in.jsonl", [{"ask": "6*7?", "shown": "\\boxed{42}", "gold": 42}])
    names = zip(("prompt", "demonstration", "solution"), ("ask", "shown", "gold"))
    flags = [part for name, column in names for part in (f"--{name}{dash}column", column)]
    template = ["--prompt_format", "text", "--prompt_template", "Q: {question}\nA:"]
    output = tmp_path / "out.jsonl"
    assert call(monkeypatch, capsys, source, "--output", output, "--decontaminate", "false", *flags, *template)[0] == 0
    assert rows_of(output) == [{"prompt": "Q: 6*7?\nA:", "demonstration": "\\boxed{42}", "solution": "42"}]


def chat(*answers):
    question = {"role": "user", "content": "What is 6 * 7?"}
    return [
        {"messages": [question | {"content": f"{number}. What is it?"}, {"role": "assistant", "content": answer}]}
        for number, answer in enumerate(answers)
    ]


def test_an_answer_that_is_not_boxed_is_found_by_its_pattern(tmp_path, monkeypatch, capsys):
    marked = chat("Six times #### 12\nseven.\n#### 42 ", "It is \\boxed{43}.\n#### 1", "no answer")
    source = write(tmp_path / "in.jsonl", [*marked, {"messages": None}])
    output = tmp_path / "out.jsonl"
    flags = ["--output", output, "--decontaminate", "false", "--solution_pattern", "#### (.+)"]
    code, printed, _ = call(monkeypatch, capsys, source, *flags)
    assert code == 0
    assert "4 rows read, 2 kept, 2 refused." in printed
    rows = rows_of(output)
    # The last match is the answer, and a demonstration with a box stays as it is.
    assert [row["solution"] for row in rows] == ["42", "43"]
    assert rows[0]["demonstration"] == "Six times #### 12\nseven.\nThe final answer is \\boxed{42}."
    assert rows[1]["demonstration"] == "It is \\boxed{43}.\n#### 1"


def test_messages_need_no_options_and_the_form_of_prompts_is_named(tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "in.jsonl", chat("It is \\boxed{42}.", "It is \\boxed{43}."))
    flags = ["--output", tmp_path / "out.jsonl", "--decontaminate", "false"]
    code, printed, _ = call(monkeypatch, capsys, source, *flags)
    assert code == 0
    assert "2 rows read, 2 kept, 0 refused." in printed
    assert "For a base model without one, add --prompt_format text." in printed
    code, printed, _ = call(monkeypatch, capsys, source, *flags, "--prompt_format", "text")
    assert code == 0
    assert "--prompt_format" not in printed


def test_the_pattern_is_advised_where_no_answer_is_boxed(tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "in.jsonl", chat("#### 42"))
    flags = ["--output", tmp_path / "out.jsonl", "--decontaminate", "false"]
    code, _, error = call(monkeypatch, capsys, source, *flags)
    assert code == 2
    assert "--solution_pattern '#### (.+)'" in error


@pytest.mark.parametrize(
    ("pattern", "message"), [("#### (", "not a regular expression: '#### ('"), ("####", "must have one group in paren")]
)
def test_a_wrong_pattern_is_reported(tmp_path, monkeypatch, capsys, pattern, message):
    source = write(tmp_path / "in.jsonl", chat("#### 42"))
    flags = ["--output", tmp_path / "out.jsonl", "--decontaminate", "false", "--solution_pattern", pattern]
    code, _, error = call(monkeypatch, capsys, source, *flags)
    assert (code, message in error) == (2, True)


def test_limit_reads_only_the_first_rows(source, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out.jsonl"
    flags = ["--limit", 2, "--decontaminate", "false"]
    code, printed, _ = call(monkeypatch, capsys, source, "--output", output, *flags)
    assert code == 0
    assert "2 rows read, 1 kept, 1 refused." in printed
    assert "Not compared with any benchmark: decontaminate is false" in printed


BROKEN = b'{"problem": "1+1", "solution": "\\\\boxed{2}", "answer": "2"}\n' * 1500 + b'{"problem": \n'


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (BROKEN, [], "line 1501, is not readable as JSON"),
        (b"", [], "is empty: it has no rows"),
        (b"\n\n", [], "has no rows in split 'train'"),
        (b'{"a": 1}\n', [], "No known dataset has the columns ['a']"),
        (b'{"a": 1}\n', ["--prompt_column", "b"], "The data has no column 'b'; it has ['a']"),
        (
            b'{"question": "a", "answer": "b"}\n',
            [],
            "1 rows read, 0 kept, 1 refused: 1 malformed. For example row 1: no",
        ),
        (b'{"prompt": "a", "solution": "1"}\n', ["--limit", "0"], "limit must be at least 1"),
        (b'{"prompt": "a", "solution": "1"}\n', ["--prompt_system", "s"], "Set prompt_format to 'chat'"),
        (b'{"prompt": "a", "solution": "1"}\n', ["--benchmarks", "x"], "remove one of the two options"),
        (b'{"prompt": "a", "solution": "1", "x": 1}\n{"prompt": "b", "solution": "1", "x": "y"}\n', [], "one type"),
    ],
)
def test_invalid_input_is_reported_in_one_paragraph_and_leaves_no_files(
    tmp_path, monkeypatch, capsys, content, flags, message
):
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    output = tmp_path / "out" / "rows.parquet"
    output.parent.mkdir()
    output.write_text("what was there before")
    code, _, error = call(monkeypatch, capsys, source, "--output", output, "--decontaminate", "false", *flags)
    messages = [line for line in error.splitlines() if line.startswith("hpt-trl prepare: error: ")]
    assert (code, len(messages)) == (2, 1)
    assert message in messages[0]
    assert "Traceback" not in error
    assert [path.name for path in output.parent.iterdir()] == ["rows.parquet"]
    assert output.read_text() == "what was there before"


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("in.jsonl", "out.txt", "output must end in .jsonl or .parquet"),
        ("./nowhere.jsonl", "out.jsonl", "'./nowhere.jsonl' does not exist"),
        ("./nowhere.gguf", "model", "The model './nowhere.gguf' does not exist"),
    ],
)
def test_invalid_names_are_reported(tmp_path, monkeypatch, capsys, source, output, message):
    code, _, error = call(monkeypatch, capsys, source, "--output", tmp_path / output, "--decontaminate", "false")
    assert code == 2
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_benchmark_itself_is_refused_with_advice(benchmark, tmp_path, monkeypatch, capsys):
    flags = ["--output", tmp_path / "out.jsonl", "--benchmarks", benchmark]
    code, _, error = call(monkeypatch, capsys, benchmark / "farm.jsonl", *flags)
    assert code == 2
    assert "If this is test data, pass --decontaminate false." in error


def test_prepare_fails_if_the_benchmarks_cannot_be_loaded(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    code, _, error = call(monkeypatch, capsys, source, "--output", tmp_path / "out.jsonl")
    assert code == 2
    assert "Pass a folder with the benchmarks as .jsonl files as --benchmarks FOLDER" in error
    assert not (tmp_path / "out.jsonl").exists()


def test_a_verifier_of_the_users_judges_the_demonstrations(tmp_path, monkeypatch, capsys):
    rows = [{"question": f"{n}+1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(8)]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "ready.jsonl"
    (tmp_path / "my_prepare_verifier.py").write_text(
        "def is_even(completions, solution, **kwargs):\n    return [float(int(gold) % 2 == 0) for gold in solution]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    flags = ["--output", output, "--decontaminate", "false", "--verifier"]
    assert call(monkeypatch, capsys, source, *flags, "my_prepare_verifier.is_even")[0] == 0
    assert [row["solution"] for row in rows_of(output)] == ["2", "4", "6", "8"]
    code, _, error = call(monkeypatch, capsys, source, *flags, "no_such_module.reward")
    assert code == 2
    assert "verifier names 'no_such_module.reward', but there is no module" in error


def test_a_prepared_file_can_be_trained_on(tmp_path, monkeypatch, capsys):
    rows = [{"question": f"{n}+1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(8)]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "ready.jsonl"
    flags = ["--prompt_format", "text", "--decontaminate", "false"]
    assert call(monkeypatch, capsys, source, "--output", output, *flags)[0] == 0
    from hpt_trl import HPTConfig, HPTTrainer
    from hpt_trl.verifier.verdicts import accuracy_reward

    dataset = load_dataset("json", data_files=str(output), split="train", cache_dir=str(tmp_path))
    args = HPTConfig(
        str(tmp_path / "run"), max_steps=1, max_completion_length=8, per_device_train_batch_size=8, num_generations=4,
        use_cpu=True, bf16=False, report_to="none", save_strategy="no",
    )  # fmt: skip
    trainer = HPTTrainer("hpt_trl/miniature/model", accuracy_reward, args, train_dataset=dataset)
    trainer.train()
    assert trainer.state.log_history[0]["demonstrations/missing"] == 0


def test_the_command_keeps_all_samples(tmp_path, monkeypatch, capsys):
    names = [name for name in dir(samples) if name.isupper() and name != "THOUGHT"]
    assert len(names) == 12
    for name in names:
        source = write(tmp_path / f"{name.lower()}.jsonl", getattr(samples, name))
        flags = ["--output", tmp_path / "out.jsonl", "--decontaminate", "false"]
        code, printed, _ = call(monkeypatch, capsys, source, *flags)
        assert code == 0, name
        assert "1 rows read, 1 kept, 0 refused." in printed, name


@pytest.mark.parametrize("key", ["read", "came"])
def test_training_reads_the_reports_of_earlier_versions(tmp_path, key):
    data = write(tmp_path / "train.jsonl", samples.READY)
    settings = {"source": "gsm8k.jsonl", "dataset_config": None, "split": "train"}
    report = {"settings": settings, key: 1200, "kept": 1000}
    data.with_name("train.jsonl.report.json").write_text(json.dumps(report))
    assert _local_data(str(data), "train").note == "prepared by `hpt-trl prepare`, which kept 1,000 of 1,200 rows"
