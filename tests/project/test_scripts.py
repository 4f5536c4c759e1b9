"""The one-file scripts: their headers resolve, and their bodies run on the bundled model."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from datasets import Dataset
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from transformers import AutoTokenizer

from hpt_trl.miniature import MODEL_PATH
from tests.project.test_extras import PROJECT, pins, unmet
from tests.project.test_packaging import REPOSITORY

FOLDER = Path(__file__).parents[2] / "notebooks" / "scripts"
SCRIPTS = sorted(FOLDER.glob("*.py"))
# The pattern of PEP 723.
HEADER = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def header(path: Path) -> dict:
    (match,) = HEADER.finditer(path.read_text())
    assert match["type"] == "script"
    return tomllib.loads(
        "".join(line.removeprefix("#").removeprefix(" ") for line in match["content"].splitlines(True))
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_headers_resolve(path):
    content = header(path)
    assert SpecifierSet(content["requires-python"]) == SpecifierSet(PROJECT["requires-python"])
    ours, *others = content["dependencies"]
    assert Requirement(ours).name == "hpt-trl"
    assert Requirement(ours).url == f"git+{REPOSITORY}"
    assert unmet(others, pins("constraints.txt")) == []
    assert f"uv run {path.name}" in path.read_text()


def test_the_lora_script_trains_with_options_of_the_command_line(tmp_path):
    options = {"model_name_or_path": "miniature", "dataset_name": "miniature", "dataset_config": "chains"}
    options |= {"output_dir": str(tmp_path / "run")}
    options |= {"max_steps": "2", "gradient_accumulation_steps": "2", "max_completion_length": "16", "use_cpu": "true"}
    options |= {"bf16": "false", "dtype": "float32", "save_strategy": "no"}
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, FOLDER / "gsm8k_lora.py", *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "run" / "gate.parquet").is_file()


def test_trls_example_trains_with_two_names_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    # The bundled model has no chat template.
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    rows = [{"question": f"{n}+1=?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(1, 9)]
    script = runpy.run_path(str(FOLDER / "grpo_with_demonstrations.py"))
    monkeypatch.setitem(script["train"].__globals__, "INSTRUCTION", "")  # words that the bundled model cannot read
    options = {"max_steps": 1, "max_completion_length": 16, "use_cpu": True, "bf16": False, "save_strategy": "no"}
    with_template = tmp_path / "model"
    for file in Path(MODEL_PATH).iterdir():
        with_template.mkdir(exist_ok=True)
        (with_template / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(with_template)
    trainer = script["train"](str(with_template), Dataset.from_list(rows), report_to="none", **options)
    assert trainer.state.global_step == 1
    assert trainer.train_dataset[0]["demonstration"] == "1+1=2\nThe answer is \\boxed{2}."
    assert (tmp_path / "runs" / "grpo_with_demonstrations").is_dir()
