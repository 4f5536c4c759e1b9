"""Invalid input on the command line: one paragraph, exit code 2, no traceback. And the commands as a user runs them."""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from hpt_trl import __version__
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
        (
            {"gate_treshold": 0.5},
            "unknown option 'gate_treshold'. Did you mean gate_threshold? `hpt-trl",
        ),
        ({"max_steps": 1.5}, "max_steps in the config file must be an integer, got 1.5. See `hpt-trl train --help`"),
        ({"gate_threshold": [1]}, "gate_threshold in the config file must be a number, got [1]"),
        ({"use_vllm": 3}, "use_vllm in the config file must be true or false, got 3"),
        (
            {"gate_threshold": "high"},
            "gate_threshold must be a number, got 'high'",
        ),
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
    ("flags", "message"),
    [
        (["--gate_treshold=0.5"], "There is no option --gate_treshold. Did you mean --gate_threshold?"),
        (["--gate-treshold", "0.5", "--max_step", "3"], "There is no option --gate-treshold. Did you mean --gate_thre"),
        (["--xyzzy", "1"], "There is no option --xyzzy. `hpt-trl train --help-all` lists all options."),
        (["gate_threshold", "0.5"], "The value 'gate_threshold' belongs to no option. Write --gate_threshold."),
        (["--gate_threshold", "high"], "gate_threshold must be a number, got 'high'."),
        (["--num_generations", "2.5"], "num_generations must be an integer, got '2.5'."),
        (["--bf16", "maybe"], "bf16 must be true or false, got 'maybe'."),
        (["--save_strategy", "stepps"], "save_strategy must be one of no, steps, epoch, best, got 'stepps'."),
        (["--gate_threshold"], "gate_threshold needs a value."),
        (["--config"], "--config takes one file, got --config"),
    ],
)
def test_a_wrong_flag_is_reported_in_the_words_of_the_user(config, monkeypatch, capsys, flags, message):
    code, error = run(monkeypatch, capsys, "train", "--config", config(), *flags)
    assert code == 2
    assert error.startswith(f"hpt-trl train: error: {message}")
    assert len(error.splitlines()) == 1
    assert not any(word in error for word in ("argument", "HfArgumentParser", "dataclass"))


def test_a_config_is_given_with_an_equals_sign_too_and_a_list_may_be_one_value(config, monkeypatch, capsys):
    path = config(reward_funcs="no_such_reward", max_steps=2)
    code, error = run(monkeypatch, capsys, "train", f"--config={path}")
    assert (code, "got 'no_such_reward'" in error) == (2, True)


NO_GPU = "There is no GPU on this machine. To train on the CPU, set --use_cpu true on the command line"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, NO_GPU),
        ({"dataset_name": "./nowhere.jsonl"}, "'./nowhere.jsonl' does not exist"),
        ({"model_name_or_path": "./no/such/model"}, "'./no/such/model' is not a folder"),
        ({"gate_threshold": 1.5}, "gate_threshold must be in [0, 1], got 1.5"),
        ({"reward_timeout": -1.0}, "reward_timeout must be above 0"),
        ({"gate_treshold": 0.5}, "unknown option 'gate_treshold'"),
    ],
)
def test_a_missing_gpu_is_named_after_everything_else(config, monkeypatch, capsys, changes, message):
    import torch

    if torch.accelerator.is_available():
        pytest.skip("needs a machine without a GPU")
    changes = {"use_cpu": None, "bf16": None} | changes
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    assert code == 2
    assert message in error
    assert (NO_GPU in error) == (message == NO_GPU)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["train", "--model_name_or_path", "./no/model"],
            "'./no/model' is not a folder",
        ),
        (["train", "--dataset-name=./nowhere.jsonl"], "'./nowhere.jsonl' does not exist"),
        (["train", "--config", "hpt_trl:miniatur"], "There is no config 'hpt_trl:miniatur'. Did you mean hpt_trl:mini"),
        (["evaluate", "--model", "./no/model", "--data", "miniature"], "'./no/model' is not a folder"),
        (["evaluate", "--model", "miniature", "--data", "nowhere.jsonl"], "'nowhere.jsonl' does not exist"),
        (["prepare", "nowhere.jsonl", "--output", "out.jsonl"], "'nowhere.jsonl' does not exist"),
        (["demonstrate", "nowhere.jsonl", "--output", "out.jsonl"], "'nowhere.jsonl' does not exist"),
        (["report", "./nowhere"], "The folder './nowhere' does not exist"),
    ],
)
def test_paths_are_checked_before_torch_is_imported(argv, message):
    program = (
        "import sys\nfrom hpt_trl.commands import cli\ntry:\n    cli.main()\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'datasets', 'sympy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "[]\n"


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


@pytest.mark.parametrize(("command", "hint"), [
    ("trian", " Did you mean train?"),
    ("--verison", " Did you mean --version?"),
    ("x", ""),
])  # fmt: skip
def test_an_unknown_command_is_reported(monkeypatch, capsys, command, hint):
    code, error = run(monkeypatch, capsys, command)
    assert code == 2
    assert error.splitlines()[0] == f"hpt-trl: error: unknown command {command!r}.{hint}"


def test_the_versions_are_printed_without_importing_the_packages():
    code = (
        "import sys; from hpt_trl.commands import cli; sys.argv = ['hpt-trl', '--version']; cli.main();"
        "print(sorted({'torch', 'transformers', 'trl', 'accelerate'} & sys.modules.keys()))"
    )
    line, imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()
    packages = ("torch", "transformers", "trl", "accelerate")
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    assert line == ", ".join([f"hpt_trl {__version__}", *versions, f"python {platform.python_version()}"])
    assert imported == "[]"


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


def test_a_terminal_shows_first_that_imports_take_time(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hpt_trl.commands.cli", "report", tmp_path]
    process = subprocess.Popen(command, stderr=theirs)
    with open(ours, "rb", buffering=0) as terminal:
        assert terminal.readline() == b"hpt-trl report: loading PyTorch, transformers and TRL (some seconds)\r\n"
        assert b"hpt-trl report: error: " in terminal.readline()
    assert process.wait() == 1


def test_the_end_of_a_command_examines_no_object_of_torch(tmp_path, monkeypatch, capsys):
    import gc

    gc.unfreeze()
    assert run(monkeypatch, capsys, "report", str(tmp_path))[0] == 1
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()


def test_evaluate_names_conversations_for_a_model_without_a_template(tmp_path, monkeypatch, capsys):
    data = data_file(tmp_path, CHAT)
    code, error = run(monkeypatch, capsys, "evaluate", "--model", "miniature", "--data", data)
    assert code == 2
    assert "hpt-trl evaluate: error: The prompts are conversations, but the tokenizer of the model has no chat" in error
