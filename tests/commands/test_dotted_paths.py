"""A user's own reward functions and gate, named by dotted path in a config."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from hpt_trl import HPTConfig
from hpt_trl.commands.train import REWARDS
from hpt_trl.common.imports import import_callable
from tests.commands.test_cli import BASE, NO_SOLUTION, config, data_file, run  # noqa: F401  (config is a fixture)

MODULE = """\
import torch
from hpt_trl.rewards import accuracy_reward

def my_reward(completions, **kwargs):
    return [float(len(completion) % 2) for completion in completions]

def my_gate(solve_rate_P, step):
    rollouts_P = torch.full_like(solve_rate_P, 0.25)
    return rollouts_P, 1 - rollouts_P

class MyReward:
    def __call__(self, completions, **kwargs):
        return [0.5] * len(completions)

an_object = MyReward()
a_number = 0.5
"""
# Of the command line in a process of its own, whose working directory holds the module.
MINIATURE = BASE | {"model_name_or_path": "miniature", "dataset_name": "miniature", "save_strategy": "steps"}
OWN = {"reward_funcs": ["accuracy_reward", "my_module.my_reward"], "gate": "my_module.my_gate"}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the working directory, which nothing but the command adds to `sys.path`."""
    path = tmp_path / "my_module.py"
    path.write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    yield path
    for name in ("my_module", "my_package", "my_package.rewards"):
        sys.modules.pop(name, None)


def train_here(folder: Path, **options) -> None:
    """Run the installed command with its files in `folder`."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(MINIATURE | OWN | options))
    command = [Path(sys.executable).with_name("hpt-trl"), "train", "--config", path]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_run_uses_records_and_resumes_the_users_own_functions(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    train_here(tmp_path, output_dir="run", max_steps=2, save_steps=1)
    folder = tmp_path / "run"

    history = pd.read_parquet(folder / "gate.parquet")
    assert sorted(set(history["step"])) == [0, 1]
    # The switch would give 0 or 1.
    assert set(history["rollouts"]) == {0.25}
    assert set(history["demonstration"]) == {0.75}
    log = [json.loads(line) for line in (folder / "_record" / "log.jsonl").read_text().splitlines()]
    assert any("rewards/my_reward/mean" in entry for entry in log)

    record = json.loads((folder / "_record" / "run.json").read_text())
    assert record["gate"] == record["config"]["gate"] == "my_module.my_gate"
    assert record["reward_functions"] == ["accuracy_reward", "my_module.my_reward"]
    facts = json.loads((folder / "hpt_run.json").read_text())
    assert facts["settings"]["gate"] == "my_module.my_gate"
    assert facts["settings"]["reward functions"] == "accuracy_reward, my_module.my_reward"
    assert facts["config"]["reward_funcs"] == ["accuracy_reward", "my_module.my_reward"]
    card = (folder / "README.md").read_text()
    assert "A custom gate, `my_module.my_gate`, mapped" in card
    assert "| reward functions | accuracy_reward, my_module.my_reward |" in card

    train_here(tmp_path, output_dir="resumed", max_steps=2, resume_from_checkpoint="run/checkpoint-1")
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert pd.read_parquet(tmp_path / "resumed" / "gate.parquet").equals(history)


def test_own_functions_are_named_on_the_command_line(config, module, monkeypatch, capsys):  # noqa: F811
    flags = ["--reward_funcs", "my_module.my_reward", "--gate", "my_module.my_gate"]
    code, error = run(monkeypatch, capsys, "train", "--config", config(), *flags)
    assert code == 0, error
    record = json.loads(Path("run/_record/run.json").read_text())
    assert (record["gate"], record["reward_functions"]) == ("my_module.my_gate", ["my_module.my_reward"])
    assert sys.path[0] == str(module.parent)  # for modules that a function imports when it is called


def test_a_config_made_in_python_takes_a_gate_by_dotted_path(module):
    gate = HPTConfig("unused", use_cpu=True, bf16=False, gate="my_module.my_gate").build_gate()
    rollouts_P, demonstration_P = gate(torch.tensor([0.0, 1.0]), 0)
    assert (rollouts_P.tolist(), demonstration_P.tolist()) == ([0.25, 0.25], [0.75, 0.75])


def test_modules_in_packages_and_callable_objects_are_found(module):
    (module.parent / "my_package").mkdir()
    module.rename(module.parent / "my_package" / "rewards.py")
    assert import_callable("my_package.rewards.my_reward", "reward_funcs")(completions=["a", "bb"]) == [1.0, 0.0]
    assert import_callable("my_package.rewards.an_object", "reward_funcs")(completions=["a"]) == [0.5]


MISSING = "but there is no module 'no_module' in the current directory or among the installed packages"


@pytest.mark.parametrize("option", ["gate", "reward_funcs"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_module.my_function", f"names 'no_module.my_function', {MISSING}"),
        ("no_module.inner.my_function", f"names 'no_module.inner.my_function', {MISSING}"),
        ("my_module.inner.my_function", "but there is no module 'my_module.inner' in the current directory"),
        ("my_module.my_fnuction", "but the module 'my_module' has no attribute 'my_fnuction'"),
        ("my_module.a_number", "names 'my_module.a_number', which is of type float. Name a function"),
        ("my_module.MyReward", "names 'my_module.MyReward', which is a class. Name a function"),
        ("fails.f", "but importing the module 'fails' raised ZeroDivisionError: division by zero. Fix the module"),
        ("lacks.f", "but importing the module 'lacks' raised ModuleNotFoundError: No module named 'no_module'"),
        ("exits.f", "but importing the module 'exits' raised SystemExit: 3"),
        ("misspelt.f", "but importing the module 'misspelt' raised SyntaxError: "),
    ],
)
def test_a_path_without_a_function_is_refused_before_the_model_is_loaded(
    config,  # noqa: F811
    module,
    monkeypatch,
    capsys,
    option,
    path,
    message,
):
    broken = {"fails": "1 / 0", "lacks": "import no_module", "exits": "raise SystemExit(3)", "misspelt": "def f("}
    for name, text in broken.items():
        (module.parent / f"{name}.py").write_text(text)
    changes = {option: path if option == "gate" else ["accuracy_reward", path], "model_name_or_path": "no/model"}
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    assert code == 2
    (line,) = [line for line in error.splitlines() if line.startswith("hpt-trl train: error: ")]
    assert option in line
    assert message in line
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_funcs": ["acuracy_reward"]}, f"must be names from {sorted(REWARDS)} or dotted paths such as"),
        ({"reward_funcs": ["./my_module.my_reward"]}, "got './my_module.my_reward'"),
        ({"gate": "swich"}, "gate must be 'switch', 'linear', 'table' or 'off', got 'swich'. Name a gate of your own"),
        ({"gate": "0.5"}, "got '0.5'"),
        ({"gate": "my_module.my_gate", "gate_threshold": 0.5}, "gate='my_module.my_gate' has no threshold"),
        ({"gate": "linear", "algorithm": "luffy"}, "algorithm='luffy' has no gate to set"),
    ],
)
def test_names_that_are_neither_known_nor_dotted_are_refused(
    config,  # noqa: F811
    module,
    monkeypatch,
    capsys,
    changes,
    message,
):
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    assert code == 2
    assert message in error
    assert "my_module" not in sys.modules


def test_accuracy_reward_needs_solutions_under_any_of_its_names(
    config,  # noqa: F811
    module,
    tmp_path,
    monkeypatch,
    capsys,
):
    rows = data_file(tmp_path, NO_SOLUTION * 8)
    for name in ("accuracy_reward", "my_module.accuracy_reward"):
        changes = {"dataset_name": rows, "reward_funcs": ["my_module.my_reward", name]}
        code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
        assert code == 2
        assert "accuracy_reward needs a 'solution' column" in error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return solve_rate_P.sum(), solve_rate_P.sum()", "or numbers. Got shapes [(), ()]"),
        ("return solve_rate_P", "Got shapes [(), (), (), (), ()]"),  # 0 to 4 of 4 rollouts
        ("return solve_rate_P['a'], 0", "The gate 'my_gate' failed: "),
        ("return 1 / (solve_rate_P - 0.75), 0 * solve_rate_P", "A gate's weights must be finite and at least 0, got"),
    ],
)
def test_a_gate_is_tried_before_the_model_is_loaded(config, module, monkeypatch, capsys, body, message):  # noqa: F811
    module.write_text(f"def my_gate(solve_rate_P, step):\n    {body}\n")
    changes = {"gate": "my_module.my_gate", "model_name_or_path": "no/model"}
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    assert code == 2
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("parameters", "missing"), [("completions, difficulty, **kwargs", "difficulty"), ("completions", "unexpected")]
)
def test_a_reward_function_that_the_columns_do_not_fit_is_named_before_the_model_is_loaded(
    config,  # noqa: F811
    module,
    monkeypatch,
    capsys,
    parameters,
    missing,
):
    module.write_text(f"def my_reward({parameters}):\n    return [0.0] * len(completions)\n")
    changes = {"reward_funcs": ["my_module.my_reward"], "model_name_or_path": "no/model"}
    code, error = run(monkeypatch, capsys, "train", "--config", config(**changes))
    assert code == 2
    assert "The reward function 'my_reward' cannot be called: " in error
    assert missing in error
    assert "Traceback" not in error
