"""What users import, run and have on disk keeps working when the code behind it moves."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpt_trl.commands import cli
from hpt_trl.commands.cli import COMMANDS
from hpt_trl.commands.push import PushArguments, push
from hpt_trl.report.diagnosis import diagnose
from hpt_trl.report.page import render
from hpt_trl.report.run_folder import read_run
from tests.tiny import make_trainer, parameters
from tests.trainer.golden_steps import projections

# What README, guides, notebooks and configs name.
PUBLIC = {
    "hpt_trl": ["HPTConfig", "HPTTrainer"],
    "hpt_trl.config": ["HPTConfig"],
    "hpt_trl.trainer": ["HPTTrainer"],
    "hpt_trl.train": ["HPTScriptArguments", "build_trainer", "run", "main"],
    "hpt_trl.rewards": ["accuracy_reward", "format_reward", "final_answer", "judge"],
    "hpt_trl.miniature": ["MODEL_PATH"],
    "hpt_trl.miniature.tasks": ["dataset", "problems"],
    "hpt_trl.miniature.build": ["build_tokenizer"],
    "hpt_trl.evaluate": ["EvaluateArguments", "evaluate"],
    "hpt_trl.estimator": [
        "ALGORITHMS", "Algorithm", "Estimator", "GRPO", "SFT", "Tokens", "clip",
        "register", "token_means", "unit_policy",
    ],
    "hpt_trl.runs": ["late", "read_run"],
    "hpt_trl.gate": ["Gate", "GateWeights", "linear_gate", "switch_gate", "table_gate"],
    "hpt_trl.diagnosis": ["Kind", "diagnose"],
    "hpt_trl.comparison.language_model": ["main"],
    "hpt_trl.faults": ["RunError"],
    "hpt_trl.data": ["Preparation", "PromptStyle", "prepare_rows", "read_rows"],
    "hpt_trl.history": ["GateHistory"],
}  # fmt: skip
MODULES_THAT_RUN = ["hpt_trl.train", "hpt_trl.comparison.language_model", "hpt_trl.miniature.build"]
# Written by 0.1.0 at f6f8d9f, by the options below: a run of six steps, and its checkpoint between two generations.
RUN = Path(__file__).parents[1] / "fixtures" / "run_0_1_0"
OPTIONS = {
    "max_steps": 6,
    "steps_per_generation": 4,
    "gradient_accumulation_steps": 2,
    "gate_threshold": 0.25,
    "shuffle_dataset": True,
    "lr_scheduler_type": "cosine",
    "logging_steps": 2,
    "log_completions": True,
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_where_they_were(module):
    loaded = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hpt-trl", name, "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert f"usage: hpt-trl {name}" in capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES_THAT_RUN)
def test_modules_that_are_scripts_have_help(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_a_checkpoint_of_an_earlier_version_resumes(tiny_model, tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    trainer = make_trainer(tiny_model, tmp_path / "resumed", **OPTIONS)
    trainer.train(str(run / "checkpoint-3"))
    end = json.loads((RUN / "end.json").read_text())["projections"]
    assert projections(parameters(trainer)) == pytest.approx(end, rel=1e-4, abs=1e-4)


def test_a_run_of_an_earlier_version_is_read(tmp_path):
    run = read_run(RUN)
    assert len(run.log) == 3
    assert len(run.gate) == 12
    assert diagnose(run)
    assert "run_0_1_0" in render([run])


def test_the_card_of_an_earlier_version_is_brought_up_to_date(tmp_path):
    run = shutil.copytree(RUN, tmp_path / "run")
    (run / "README.md").unlink()
    push(PushArguments(str(run)))
    assert "Hybrid Post-Training" in (run / "README.md").read_text()
