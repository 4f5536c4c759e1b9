"""No model or data set brings code, and a config only what it names by dotted path; weights are safetensors; tokens
stay secret."""

import ast
import html
import json
import re
import shutil
import sys
import zipfile
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hpt_trl import HPTConfig
from hpt_trl.commands import cli
from hpt_trl.common.command_line import USER_ERRORS
from hpt_trl.model_card.run_facts import Data, read_facts
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES
from hpt_trl.monitoring.samples import Sample, SampleLog
from tests.commands.test_cli import config, run  # noqa: F401  (config is a fixture)
from tests.project.test_layout import MODULES, ROOT
from tests.tiny import build_tiny_model

SOURCES = [*MODULES.values(), *(ROOT / "configs").rglob("*.yaml"), *(ROOT / "hpt_trl").rglob("*.yaml")]
# Calls that run what they are given, as (owner, name), and modules that build objects from what they read.
RUNS_TEXT = {("", "eval"), ("", "exec"), ("", "compile"), ("", "__import__"), ("os", "system"), ("os", "popen")}
RUNS_TEXT |= {("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load")}
RUNS_FILES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy"}


def test_remote_code_is_trusted_nowhere():
    assert HPTConfig("unused", use_cpu=True, bf16=False).trust_remote_code is False
    for path in SOURCES:
        assert not re.search(r"trust_remote_code\W+true", path.read_text(), re.IGNORECASE), path


def called(call: ast.Call) -> tuple[str, str]:
    """Who is called by which name; the owner is "" for a plain name and "?" for anything but a name."""
    if isinstance(call.func, ast.Name):
        return "", call.func.id
    return getattr(getattr(call.func, "value", None), "id", "?"), getattr(call.func, "attr", "?")


def is_true(call: ast.Call, name: str) -> bool:
    return any(keyword.arg == name and ast.unparse(keyword.value) == "True" for keyword in call.keywords)


def modules_imported(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_runs_what_it_reads(name):
    tree = ast.parse(MODULES[name].read_text())
    assert not modules_imported(tree) & RUNS_FILES
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        assert called(call) not in RUNS_TEXT, ast.unparse(call)
        assert called(call) != ("torch", "load") or is_true(call, "weights_only"), ast.unparse(call)
        assert not is_true(call, "shell"), ast.unparse(call)
        assert not is_true(call, "allow_pickle"), ast.unparse(call)


def test_modules_are_imported_by_name_where_the_user_names_a_dotted_path_only():
    # The commands are chosen from a list, and what `hpt_trl` exports is in a table.
    callers = {name for name, path in MODULES.items() if "import_module(" in path.read_text()}
    assert callers == {"commands.cli", "common.imports"}
    importers = {name for name, path in MODULES.items() if "import_callable(" in path.read_text()}
    assert importers == {"common.imports", "config", "commands.train", "verifier.custom"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch {marker}']", "python/object/apply:os.system"),
        ("a: !!python/name:os.system", "python/name:os.system"),
        ("env: {{CXX: 'touch {marker}'}}\nmodel_name_or_path: miniature", "env"),
    ],
)
def test_a_config_that_would_run_code_is_refused(tmp_path, monkeypatch, capsys, content, message):
    marker, path = tmp_path / "marker", tmp_path / "bad.yaml"
    path.write_text(content.format(marker=marker))
    code, error = run(monkeypatch, capsys, "train", "--config", str(path))
    assert code == 2
    assert len(error.splitlines()) == 1
    assert message in error
    assert not marker.exists()


def test_no_option_evaluates_its_text(tmp_path):
    marker = tmp_path / "marker"
    attack = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    texts = [each.name for each in fields(HPTConfig) if each.init and "str" in str(each.type)]
    assert len(texts) > 30
    for name in texts:
        with suppress(*USER_ERRORS, KeyError):
            HPTConfig(**({"output_dir": str(tmp_path), "use_cpu": True, "bf16": False} | {name: attack}))
    assert not marker.exists()


def test_gate_is_the_only_option_of_a_config_that_imports_a_module(tmp_path, monkeypatch):
    marker, importing = tmp_path / "marker", set()
    (tmp_path / "attack.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef function(*args): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [each.name for each in fields(HPTConfig) if each.init and "str" in str(each.type)]:
        with suppress(*USER_ERRORS, KeyError):
            HPTConfig(**({"output_dir": "run", "use_cpu": True, "bf16": False} | {name: "attack.function"}))
        if marker.exists():
            importing.add(name)
            marker.unlink()
        sys.modules.pop("attack", None)
    assert importing == {"gate"}


def test_a_model_with_code_of_its_own_is_refused(config, tmp_path, monkeypatch, capsys):  # noqa: F811
    marker, folder = tmp_path / "marker", tmp_path / "model"
    build_tiny_model(folder)
    attack = f"open({str(marker)!r}, 'w').close()\n"
    (folder / "own_code.py").write_text(f"{attack}from transformers import PretrainedConfig as Own\n")
    described = json.loads((folder / "config.json").read_text())
    described |= {"model_type": "own", "auto_map": {"AutoConfig": "own_code.Own"}}
    (folder / "config.json").write_text(json.dumps(described))
    code, error = run(monkeypatch, capsys, "train", "--config", config(model_name_or_path=str(folder)))
    assert code == 2
    assert "custom code" in error
    assert not marker.exists()


def is_pickled(path):
    """Whether a file is a pickle or an archive by torch.save, which holds one."""
    return zipfile.is_zipfile(path) or path.read_bytes()[:1] == b"\x80"


@pytest.mark.parametrize("changes", [{}, {"use_peft": True, "lora_target_modules": "all-linear"}], ids=["full", "lora"])
def test_weights_are_written_as_safetensors_only(config, tiny_model, tmp_path, monkeypatch, capsys, changes):  # noqa: F811
    flags = ["train", "--config", config(save_strategy="steps", save_steps=1, **changes)]
    assert run(monkeypatch, capsys, *flags)[0] == 0
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 2  # the checkpoint's and the end's
    weights = set(AutoModelForCausalLM.from_pretrained(tiny_model).state_dict())
    # Transformers' own. The first is loaded by nobody; the others with weights_only=True.
    own = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    for path in files:
        if is_pickled(path) and path.name not in own:
            assert not set(torch.load(path, weights_only=True)) & weights, path
    assert {path.name for path in files if is_pickled(path)} >= {"optimizer.pt"}


SECRETS = {"hub": "hf_" + "Hub0" * 8, "environment": "hf_" + "Env1" * 8}


def leaks(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


def contents(path: Path) -> str:
    """Everything in a file, also in an archive, whose members may be compressed."""
    members = zipfile.ZipFile(path) if zipfile.is_zipfile(path) else None
    parts = [path.read_bytes(), *([members.read(name) for name in members.namelist()] if members else [])]
    return b"\n".join(parts).decode("latin-1")


def test_tokens_are_in_no_file_and_on_no_screen(config, tmp_path, monkeypatch, capfd, caplog):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", SECRETS["environment"])
    options = {"save_strategy": "steps", "save_steps": 1, "log_completions": True, "logging_steps": 1}
    argv = ["hpt-trl", "train", "--config", config(**options), "--hub_token", SECRETS["hub"]]
    monkeypatch.setattr(sys, "argv", argv)
    with caplog.at_level("DEBUG"):
        cli.main()
    shown = capfd.readouterr()
    assert "Model and gate.parquet saved" in shown.out
    assert not leaks(shown.out + shown.err + caplog.text)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"README.md", "gate.parquet", "training_args.bin", "trainer_state.json"} <= {path.name for path in files}
    for path in files:
        assert not leaks(contents(path)), path


def test_a_secret_with_special_characters_is_in_no_report_card_or_record(tmp_path, monkeypatch, capsys):
    """Escaping for HTML, Markdown or JSON must not hide it from the masking."""
    secret = 'battery & "staple|_x_<'
    monkeypatch.setenv("MY_API_KEY", secret)
    folder = tmp_path / f"run {secret}"
    shutil.copytree(ROOT / "tests" / "fixtures" / "run_0_1_0", folder)
    record = json.loads((folder / "_record" / "run.json").read_text())
    record["config"] |= {"run_name": secret, "output_dir": str(folder)}
    (folder / "_record" / "run.json").write_text(json.dumps(record))
    samples = SampleLog()
    samples.begin(folder, 0)
    samples.latest = [Sample(1, secret, secret, {"mine": 1.0}, {"note": secret})]
    samples.write(folder)
    replace(read_facts(folder), name=secret, data=Data(secret), settings={"a": secret}).write(folder)
    for command, output in (("report", tmp_path / "report"), ("push", folder)):
        flags = ["--output", str(output)] if command == "report" else []
        assert run(monkeypatch, capsys, command, str(folder), *flags)[0] == 0
    files = [*(tmp_path / "report").rglob("*"), folder / "README.md", folder / "hpt_run.json", folder / SAMPLES]
    for path in files:
        text = html.unescape(path.read_bytes().decode("latin-1")).replace("\\", "")
        assert "battery" not in text, path
        assert "staple" not in text, path
    assert "***" in (folder / "README.md").read_text()


def test_tokens_are_in_no_message(tmp_path, monkeypatch, capsys):
    args = HPTConfig(str(tmp_path), use_cpu=True, bf16=False, hub_token=SECRETS["hub"])
    assert args.hub_token == SECRETS["hub"]
    assert not leaks(f"{args} {args!r} {args.to_dict()} {args.to_json_string()}")
    path = tmp_path / "bad.yaml"
    path.write_text(f"hub_token: {SECRETS['hub']}: x\n")
    misspelt = ["--use_cpu", "true", "--bf16", "false", "--hub_tokne", SECRETS["hub"]]
    messages = {
        "There is no option --hub_tokne. Did you mean --hub_token?": misspelt,
        "The value 'hf_***' belongs to no option": ["--hub_token", SECRETS["hub"], SECRETS["hub"]],
        "in line 1, column 47": ["--config", str(path)],
    }
    for message, flags in messages.items():
        code, error = run(monkeypatch, capsys, "train", *flags)
        assert code == 2
        assert message in error
        assert not leaks(error)


def test_a_token_among_options_that_are_written_down_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model_init_kwargs holds \['token'\].*HF_TOKEN") as refused:
        HPTConfig(str(tmp_path), use_cpu=True, bf16=False, model_init_kwargs={"token": SECRETS["hub"]})
    assert not leaks(str(refused.value))
