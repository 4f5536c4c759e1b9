"""Every config of configs/accelerate, on processes of one CPU: it trains as one process does, and nothing hangs.

What runs under a launcher stands in tests/trainer/sharded_worker.py. The long half: `make test-distributed`.
"""

import math
import shutil
import socket

import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from tests.launch import CONFIGS, NAMES, TWO_NODES, accelerate, cpu_form, run_all
from tests.tiny import relative_error
from tests.trainer.distributed_worker import EQUAL_TO_ONE_PROCESS
from tests.trainer.sharded_worker import HALVES, OFFLOAD_CASES, STEPS_OF_PATTERNS, equality_trainer, movement, pattern

SHORT = ["prompt", "miniature"]
MINIATURE = ["miniature", "miniature_unspread"]
EQUAL_CONFIGS = ["multi_gpu", "zero1", "zero2", "zero3", "fsdp2"]
# What one long launch of a config runs.
LONG = dict.fromkeys(NAMES, MINIATURE) | {name: [*EQUAL_TO_ONE_PROCESS, *MINIATURE] for name in EQUAL_CONFIGS}
LONG["zero3_offload"] = [*OFFLOAD_CASES, *MINIATURE]

# Distributed type, processes, ZeRO stage, optimizer in main memory, share of the parameters a process steps.
IN_USE = {
    "single_gpu": ("NO", 1, None, False, 1.0),
    "cpu_2proc": ("MULTI_CPU", 2, None, False, 1.0),
    "multi_gpu": ("MULTI_CPU", 2, None, False, 1.0),
    "zero1": ("DEEPSPEED", 2, 1, False, 0.5),
    "zero2": ("DEEPSPEED", 2, 2, False, 0.5),
    "zero3": ("DEEPSPEED", 2, 3, False, 0.5),
    "zero3_offload": ("DEEPSPEED", 2, 3, True, 0.5),
    "multi_node": ("DEEPSPEED", 2, 3, False, 0.5),
    "fsdp2": ("FSDP", 2, None, False, 0.5),
}


@pytest.fixture(scope="session")
def launched(tiny_model, tmp_path_factory):
    """`launched(config, names)` -> folder and results of one launch, made once."""
    done = {}

    def launch(config: str, *names: str):
        if config == "zero3_offload" and not shutil.which("c++"):
            pytest.skip("DeepSpeed's CPU Adam needs a C++ compiler: no c++ on PATH")
        if (config, names) not in done:
            folder = tmp_path_factory.mktemp(config)
            arguments = ["-m", "tests.trainer.sharded_worker", config, tiny_model, str(folder), *names]
            commands = [accelerate(cpu_form(config, folder), *arguments)]
            if config == "multi_node":
                commands = two_nodes(cpu_form(config, folder, TWO_NODES), *arguments)
            run_all(commands, folder, seconds=600)
            done[config, names] = folder, torch.load(folder / "results.pt")
        return done[config, names]

    return launch


def two_nodes(config, *arguments):
    """The commands that the SLURM script of multi_node.yaml gives its nodes, here on one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    flags = ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    return [accelerate(config, "--machine_rank", rank, *flags, *arguments) for rank in ("0", "1")]


def check_in_use(config, results):
    names = ("distributed_type", "num_processes", "stage", "offloads")
    *expected, own_share = IN_USE[config]
    assert [results[name] for name in names] == expected
    assert results["own_share"] == pytest.approx(own_share, abs=0.05)


def check_equality(launched, tiny_model, tmp_path, config, name, names):
    results = launched(config, *names)[1][name]
    check_in_use(config, results)
    moved, losses = movement(equality_trainer("one process", tiny_model, tmp_path, 1, name))
    assert relative_error(results["moved"], moved) < 1e-5
    assert results["losses"] == pytest.approx(losses, rel=1e-5, abs=1e-6)


def check_miniature(launched, config, name, names):
    folder, results = launched(config, *names)
    folder, results = folder / name, results[name]
    check_in_use(config, results)
    history = pd.read_parquet(folder / "gate.parquet")
    assert history.groupby("step").size().tolist() == [2 * results["num_processes"]] * 4
    # One process's prompts in steps 0 and 1, the other's in 2 and 3.
    halves = [1.0] * results["num_processes"] + [0.0] * results["num_processes"]
    weights = history.groupby("step")["demonstration"].apply(list).tolist()
    assert weights == [halves, halves, halves[::-1], halves[::-1]]
    steps = [entry for entry in results["log"] if "loss" in entry]
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in steps)
    saved = AutoModelForCausalLM.from_pretrained(folder / "saved", dtype=torch.float32, use_safetensors=True)
    for weight_name, weight in torch.load(folder / "weights.pt").items():
        assert torch.equal(saved.get_parameter(weight_name), weight), weight_name


@pytest.mark.parametrize("config", ["zero3", "fsdp2"])
def test_a_sharded_step_is_one_process_step(launched, tiny_model, tmp_path, config):
    check_equality(launched, tiny_model, tmp_path, config, "prompt", SHORT)


@pytest.mark.parametrize("config", ["zero3", "fsdp2"])
def test_a_sharded_run_is_one_sided_and_saves_a_model_that_transformers_loads(launched, config):
    check_miniature(launched, config, "miniature", SHORT)


@pytest.mark.distributed
@pytest.mark.parametrize("name", EQUAL_TO_ONE_PROCESS)
@pytest.mark.parametrize("config", EQUAL_CONFIGS)
def test_two_processes_move_the_parameters_as_one_does(launched, tiny_model, tmp_path, config, name):
    check_equality(launched, tiny_model, tmp_path, config, name, LONG[config])


@pytest.mark.distributed
@pytest.mark.parametrize("name", OFFLOAD_CASES)
def test_offloaded_gradients_are_all_there(launched, tiny_model, tmp_path, name):
    check_equality(launched, tiny_model, tmp_path, "zero3_offload", name, LONG["zero3_offload"])


@pytest.mark.distributed
@pytest.mark.parametrize("name", MINIATURE)
@pytest.mark.parametrize("config", NAMES)
def test_every_launch_config_trains_one_sided(launched, config, name):
    check_miniature(launched, config, name, LONG[config])


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["patterns_200", "patterns_200_unspread"])
@pytest.mark.parametrize("config", ["multi_gpu", "zero3"])
def test_no_pattern_of_the_gate_hangs(launched, config, name):
    results = launched(config, "patterns_200", "patterns_200_unspread")[1][name]
    check_in_use(config, results)
    shares = [entry["hpt/demonstration_share"] for entry in results["log"] if "loss" in entry]
    assert shares == [sum(pattern(step)[1]) / 4 for step in range(STEPS_OF_PATTERNS)]


def test_the_patterns_are_all_there():
    patterns = [pattern(step)[1] for step in range(STEPS_OF_PATTERNS)]
    for prompts in HALVES.values():
        assert patterns.count([float(p in prompts) for p in range(4)]) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_a_launch_config_says_how_it_is_launched_and_on_what(name):
    text = (CONFIGS / f"{name}.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any(f'accelerate launch --config_file "$(hpt-trl configs accelerate/{name})"' in line for line in comments)
    assert any("GPU" in line or "CPU" in line for line in comments)
    assert any("tests/trainer/test_sharded.py" in line for line in comments)
    assert yaml.safe_load(text)["num_processes"] >= 1
    assert name in IN_USE
