"""Invalid input on the command line: one paragraph, exit code 2, no traceback. And the commands as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpt_trl.commands import cli
from tests.tiny import ROWS

BASE = {
    "max_steps": 1,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 8,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
}


@pytest.fixture
def config(tiny_model, tmp_path):
    """Write a config file; `write(key=value)` changes it, None removes a key."""
    data = tmp_path / "rows.jsonl"
    ROWS.to_json(data)

    def write(**changes):
        names = {"model_name_or_path": tiny_model, "dataset_name": str(data), "output_dir": str(tmp_path / "run")}
        options = {key: value for key, value in (names | BASE | changes).items() if value is not None}
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(options))  # JSON is YAML
        return str(path)

    return write


def run(monkeypatch, capsys, *argv):
    """Run the command line in this process; returns exit code and stderr."""
    monkeypatch.setattr(sys, "argv", ["hpt-trl", *argv])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def data_file(tmp_path, rows):
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


NO_PROMPT = [{"text": "a", "demonstration": "b"}]
CHAT = [{"prompt": [{"role": "user", "content": "a"}], "demonstration": "b", "solution": "1"}] * 8
NO_SOLUTION = [{"prompt": "a", "demonstration": "b"}]
NO_DEMONSTRATION = [{"prompt": "a", "solution": "1"}, {"prompt": "b", "solution": "2"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate_treshold": 0.5}, "gate_treshold"),
        ({"gate_threshold": 1.5}, "gate_threshold must be in [0, 1], got 1.5"),
        ({"num_generations": 1}, "at least 2 generations"),
        ({"model_name_or_path": "./no/such/model"}, "'./no/such/model' is not a folder with a config.json"),
        ({"model_name_or_path": None}, "No model was given"),
        ({"dataset_name": "./nowhere.jsonl"}, "'./nowhere.jsonl' does not exist"),
        ({"dataset_name": None}, "No data was given"),
        ({"reward_funcs": ["acuracy_reward"]}, "reward_funcs must be names from"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"dataset_name": NO_PROMPT}, "No known dataset has the columns ['demonstration', 'text']"),
        ({"dataset_name": NO_DEMONSTRATION}, "No row of the training data has a demonstration"),
        ({"dataset_name": NO_SOLUTION}, "accuracy_reward needs a 'solution' column"),
        ({"dataset_name": []}, "empty"),
        ({"per_device_train_batch_size": 256}, "no step is possible"),
        ({"resume_from_checkpoint": "./nowhere"}, "resume_from_checkpoint is not a folder: './nowhere'"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "dataset_name is a single file"),
        ({"output_dir": "/proc/nowhere"}, "/proc/nowhere"),
        ({"model_name_or_path": "miniature", "dataset_name": CHAT}, "no chat template"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_input_is_reported_in_one_paragraph(config, tmp_path, monkeypatch, capsys, changes, message):
    if isinstance(changes.get("dataset_name"), list):
        changes = changes | {"dataset_name": data_file(tmp_path, changes["dataset_name"])}
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    messages = [line for line in error.splitlines() if line.startswith("hpt-trl train: error: ")]
    assert code == 2
    assert len(messages) == 1
    assert message in messages[0]
    assert "Traceback" not in error
    assert "usage:" not in error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1,", "is not readable as YAML"),
        ("just words", "must consist of `key: value` lines, got str"),
        (None, "not exist"),
    ],
)
def test_an_unreadable_config_is_reported(tmp_path, monkeypatch, capsys, content, message):
    path = tmp_path / "bad.yaml"
    if content:
        path.write_text(content)
    code, error = run(monkeypatch, capsys, "train", "--config", str(path))
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_unknown_command_is_reported(monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, "trian")
    assert code == 2
    assert "unknown command 'trian'" in error


def test_a_run_saves_a_model_that_a_pipeline_loads(config, tmp_path, monkeypatch, capsys):
    from transformers import pipeline

    assert run(monkeypatch, capsys, "train", "--config", config(), "--max_steps", "2")[0] == 0
    folder = tmp_path / "run"
    assert {"gate.parquet", "trainer_state.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    answer = pipeline("text-generation", model=str(folder))("1+1", max_new_tokens=4)
    assert answer[0]["generated_text"].startswith("1+1")


def test_the_installed_command_fails_without_a_traceback():
    command = Path(sys.executable).with_name("hpt-trl")
    done = subprocess.run(
        [command, "evaluate", "--model", "./missing", "--data", "miniature"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("hpt-trl evaluate: error: The model './missing'")
    assert "Traceback" not in done.stderr


def test_quickstart_raises_the_accuracy_by_more_than_15_points(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "quick"
    assert run(monkeypatch, capsys, "quickstart", "--output_dir", str(folder))[0] == 0
    before, after = json.loads((folder / "quickstart.json").read_text()).values()
    assert after["accuracy"] > before["accuracy"] + 0.15
    assert after["low"] > before["high"]
    assert before["problems"] == after["problems"] == 300
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_terminal_shows_first_that_imports_take_time():
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hpt_trl.commands.cli", "report", "./nowhere"]
    process = subprocess.Popen(command, stderr=theirs)
    with open(ours, "rb", buffering=0) as terminal:
        assert terminal.readline() == b"hpt-trl report: loading PyTorch, transformers and TRL (some seconds)\r\n"
        assert b"hpt-trl report: error: " in terminal.readline()
    assert process.wait() == 1


def test_the_end_of_a_command_examines_no_object_of_torch(monkeypatch, capsys):
    import gc

    gc.unfreeze()
    assert run(monkeypatch, capsys, "report", "./nowhere")[0] == 1
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()
