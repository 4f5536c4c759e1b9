"""Two real processes (gloo) give what GRPOTrainer gives on two, and what HPTTrainer gives on one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import relative_error
from tests.trainer.distributed_worker import EQUAL_TO_GRPO, EQUAL_TO_ONE_PROCESS, moved_parameters

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2proc.yaml"]


@pytest.fixture(scope="module")
def two_processes(tiny_model, tmp_path_factory):
    """Results by name of one launch; a rank that waits for the other forever runs into the time limit."""
    folder = tmp_path_factory.mktemp("two")
    command = [*LAUNCH, "-m", "tests.trainer.distributed_worker", tiny_model, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "results.pt")


@pytest.mark.parametrize("name", EQUAL_TO_GRPO)
def test_gate_shut_is_grpo_on_two_processes(two_processes, name):
    assert torch.equal(two_processes[f"{name}/hpt"], two_processes[f"{name}/grpo"])
    assert not torch.equal(two_processes[f"{name}/hpt"], two_processes["start"])


def test_padding_of_rows_from_another_rank_weighs_nothing(two_processes):
    # TRL's sequence-level losses sum the logarithm of the ratio over padding, too.
    assert two_processes["ratios"].tolist() == [[0.5, 0.5, 0.5, 1.0, 1.0], [0.5] * 5]


@pytest.mark.parametrize("name", EQUAL_TO_ONE_PROCESS)
def test_two_processes_move_the_parameters_as_one_does(two_processes, tiny_model, tmp_path, name):
    assert relative_error(two_processes[name], moved_parameters(tiny_model, tmp_path, 1, name)) < 1e-5


def test_two_processes_train_from_the_command_line(tiny_model, tmp_path):
    from tests.tiny import ROWS

    data = tmp_path / "rows.jsonl"
    ROWS.to_json(data)
    options = {
        "model_name_or_path": tiny_model, "dataset_name": data, "output_dir": tmp_path / "run", "max_steps": 2,
        "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 8, "use_cpu": "true",
        "bf16": "false", "report_to": "none", "save_strategy": "no",
    }  # fmt: skip
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(
        [*LAUNCH, "-m", "hpt_trl.train", *flags], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    import pandas as pd

    assert pd.read_parquet(tmp_path / "run" / "gate.parquet").groupby("step").size().tolist() == [2, 2]


def test_bad_input_on_two_processes_is_told_once(tmp_path):
    flags = ["--model_name_or_path", "./gone", "--dataset_name", "miniature", "--use_cpu", "true", "--bf16", "false"]
    flags += ["--output_dir", str(tmp_path)]
    done = subprocess.run(
        [*LAUNCH, "-m", "hpt_trl.train", *flags], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0
    assert done.stderr.count("error: The model './gone'") == 1
