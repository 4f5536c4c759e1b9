"""DeepSpeed with an offloaded optimizer keeps the gradients of every backward pass of a step."""

import shutil

import pytest
import torch
import yaml

from tests.launch import CONFIGS, TWO_CPUS, accelerate, run_all
from tests.tiny import relative_error
from tests.trainer.offload_worker import offload_trainer
from tests.trainer.sharded_worker import movement


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [2, 3])
def test_no_backward_of_a_step_is_lost(tiny_model, tmp_path, stage):
    if not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles its Adam")
    config = yaml.safe_load((CONFIGS / "zero3_offload.yaml").read_text()) | TWO_CPUS
    config["deepspeed_config"] |= {"zero_stage": stage, "zero3_init_flag": stage == 3, "offload_param_device": "none"}
    path, results = tmp_path / "offload.yaml", tmp_path / "results.pt"
    path.write_text(yaml.safe_dump(config))
    command = accelerate(path, "-m", "tests.trainer.offload_worker", str(tiny_model), str(results))
    run_all([command], tmp_path, seconds=1800)
    launched = torch.load(results)
    assert (launched["offloads"], launched["processes"]) == (True, 2)
    moved, _ = movement(offload_trainer(tiny_model, tmp_path / "one", 1))
    assert relative_error(launched["moved"], moved) < 1e-5
