"""A model that cannot be loaded or trained on ends `train` and `evaluate` in one paragraph, before any work is done."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl.commands import evaluate, train
from tests.tiny import ROWS

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"


class Evil:
    """Runs a command where it is unpickled without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {self.folder}/ran",)


def evil(model: Path) -> None:
    (model / WEIGHTS).unlink()
    torch.save({"model.norm.weight": Evil(model)}, model / PICKLED)


def plain_pickle(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / PICKLED).write_bytes(pickle.dumps(Evil(model)))


def truncated(model: Path) -> None:
    os.truncate(model / WEIGHTS, 5000)


def truncated_pickle(model: Path) -> None:
    torch.save(load_file(model / WEIGHTS), model / PICKLED)
    (model / WEIGHTS).unlink()
    os.truncate(model / PICKLED, 5000)


def zeros(model: Path) -> None:
    (model / WEIGHTS).write_bytes(bytes((model / WEIGHTS).stat().st_size))


def empty(model: Path) -> None:
    (model / WEIGHTS).write_bytes(b"")


def other_shapes(model: Path) -> None:
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace('"intermediate_size": 32', '"intermediate_size": 48'))


def tokenizer_of_zeros(model: Path) -> None:
    (model / "tokenizer.json").write_bytes(bytes(100))


def index_without_shards(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / f"{WEIGHTS}.index.json").write_text('{"weight_map": {"model.norm.weight": "model-1.safetensors"}}')


def nan(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    save_file({name: torch.full_like(value, torch.nan) for name, value in weights.items()}, model / WEIGHTS, _FORMAT)


def one_infinity(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.inf
    save_file(weights, model / WEIGHTS, _FORMAT)


_FORMAT = {"format": "pt"}
DAMAGES = [
    evil, plain_pickle, truncated, truncated_pickle, zeros, empty, other_shapes, tokenizer_of_zeros,
    index_without_shards, nan, one_infinity,
]  # fmt: skip


def arguments_of(command, model: Path, folder: Path) -> list[str]:
    """Arguments of `train` or `evaluate` on a few rows."""
    ROWS.to_json(folder / "rows.jsonl")
    if command is evaluate:
        return ["--model", str(model), "--data", str(folder / "rows.jsonl"), "--output", str(folder / "out")]
    options = {"model_name_or_path": model, "dataset_name": folder / "rows.jsonl", "output_dir": folder / "out"}
    options |= {"use_cpu": "true", "bf16": "false", "report_to": "none", "max_steps": 1}
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def error_of(command, model: Path, folder: Path, capsys) -> str:
    """What the command says as it ends."""
    with pytest.raises(SystemExit) as end:
        command.main(arguments_of(command, model, folder))
    assert end.value.code in (1, 2)
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


@pytest.mark.parametrize("command", [train, evaluate], ids=["train", "evaluate"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_model_ends_in_one_paragraph(tiny_model, tmp_path, capsys, damage, command):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    damage(model)
    error = error_of(command, model, tmp_path, capsys)
    if damage in (nan, one_infinity):
        assert "is not finite" in error
        assert (damage is nan) or "model.layers.1.mlp.up_proj.weight" in error
    else:
        assert f"The model '{model}' or its tokenizer could not be loaded: " in error
    assert not (model / "ran").exists()
    assert not list(tmp_path.glob("out/*.json*"))


@pytest.mark.parametrize("command", [train, evaluate], ids=["train", "evaluate"])
def test_an_adapter_that_runs_code_is_refused(tiny_model, tmp_path, capsys, command):
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapter = tmp_path / "adapter"
    get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(adapter)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"base_model.model.model.norm.weight": Evil(adapter)}, adapter / "adapter_model.bin")
    assert f"The model '{adapter}' or its tokenizer could not be loaded: " in error_of(
        command, adapter, tmp_path, capsys
    )
    assert not (adapter / "ran").exists()


def test_a_model_whose_logits_are_not_finite_cannot_be_evaluated(tiny_model, tmp_path, capsys):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = load_file(model / WEIGHTS)
    save_file({name: value.fill_(3e38) for name, value in weights.items()}, model / WEIGHTS, _FORMAT)
    assert "probabilities that are not finite" in error_of(evaluate, model, tmp_path, capsys)
