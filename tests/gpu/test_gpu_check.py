"""`make gpu-check` itself, at tiny sizes on a CPU: every check runs, and a part that fails loses nothing but itself."""

import sys

import pytest

from tests.gpu import parts
from tests.gpu.__main__ import main
from tests.gpu.fetch_wheels import BUILT, PACKAGES, requirements
from tests.gpu.parts import PARTS, run_isolated, run_part
from tests.gpu.setting import SIZES, Finding, Setting
from tests.launch import ROOT


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return Setting("cpu", "tiny", tmp_path_factory.mktemp("gpu_check"))


def names_of(findings):
    return " ".join(finding.name for finding in findings)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_runs_on_a_cpu_and_finds_what_it_should(setting, name):
    findings = list[Finding]()
    run_part(setting, name, findings.append)
    assert not [finding for finding in findings if finding.passed is False]
    expected = {
        "equality": ["GRPOTrainer, float32", "GRPOTrainer, bf16", "loop's, float32", "loop in bf16", "resumed"],
        "time_small": ["no waste: training", "three quarters silent: peak", "all solved: training part, HPT / floor"],
        "options": ["LoRA", "QLoRA", "cast weights", "max_tokens_per_forward"],
        "sharded": ["zero2 is in use", "zero2 moves"],
        "time_large": ["1.5b, no waste: training part, HPT / floor", "1.5b, GRPO: share"],
    }
    for text in expected[name]:
        assert text in names_of(findings)


def test_a_check_that_raises_is_a_failed_finding_and_the_next_one_runs(setting, monkeypatch):
    def broken(setting):
        yield Finding("first", "1", "", None)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def sound(setting):
        yield Finding("last", "1", "", True)

    monkeypatch.setitem(parts.PARTS, "options", (1, lambda setting: (broken, sound)))
    findings = list[Finding]()
    run_part(setting, "options", findings.append)
    assert [(finding.name, finding.passed) for finding in findings] == [
        ("first", None), ("broken ends without an error", False), ("last", True),
    ]  # fmt: skip
    assert "illegal memory access" in findings[1].value


def test_a_process_that_crashes_or_hangs_is_reported(tmp_path):
    log = tmp_path / "output.txt"
    assert run_isolated([sys.executable, "-c", "print('ok')"], log, 60) == ""
    crash = "import os; print('before the end', flush=True); os.abort()"
    assert run_isolated([sys.executable, "-c", crash], log, 60).startswith("exit code -6. before the end")
    assert run_isolated([sys.executable, "-c", "import time; time.sleep(600)"], log, 2).startswith("stopped after 2 s")


def test_without_a_gpu_the_command_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["tests.gpu", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "PyTorch finds no CUDA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wheels_are_those_of_the_tested_versions():
    listed = requirements(PACKAGES + BUILT)
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert set(listed) <= set(constraints)
    assert {"trl", "datasets", "math-verify", "deepspeed", "bitsandbytes"} <= {line.split("==")[0] for line in listed}


def test_the_goals_are_those_of_real_sizes():
    assert SIZES["full"].models["0.5b"]["vocab_size"] == 151936
    assert set(SIZES["full"].launches) == {"zero1", "zero2", "zero3", "fsdp2"}
    assert SIZES["full"].models.keys() == SIZES["tiny"].models.keys()
