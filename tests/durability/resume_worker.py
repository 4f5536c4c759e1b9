"""A run under DeepSpeed, and the same resumed in the middle; `test_resume.py` launches it on two processes.

accelerate launch --config_file ZERO.yaml -m tests.durability.resume_worker MODEL FOLDER
"""

import sys
from pathlib import Path

import deepspeed.ops
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from tests.durability.kill_and_resume import OPTIONS, log_without_times
from tests.tiny import make_trainer

# Its shared-memory collectives need a compiler and a minute; gloo's give the same.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
torch.set_num_threads(1)


def main(model: str, folder: Path) -> None:
    """Make both runs; every process checks what it logged, the first one the weights and the history too."""
    logs = []
    options = OPTIONS | {"max_steps": 6, "save_total_limit": None}
    # After step 3 there are rollouts left to train on, and a metric not yet logged.
    for name, checkpoint in (("whole", None), ("resumed", str(folder / "whole" / "checkpoint-3"))):
        trainer = make_trainer(model, folder / name, **options)
        assert trainer.accelerator.distributed_type == DistributedType.DEEPSPEED
        assert trainer.accelerator.num_processes == 2
        trainer.train(checkpoint)
        trainer.save_model(str(folder / name / "final"))
        logs.append(log_without_times(trainer.state.log_history))
    assert logs[0] == logs[1]
    if trainer.accelerator.is_main_process:
        weights, again = (load_file(folder / name / "final" / "model.safetensors") for name in ("whole", "resumed"))
        start = load_file(Path(model) / "model.safetensors")
        assert all(torch.equal(again[name], weight) for name, weight in weights.items())
        assert not all(torch.equal(start[name], weight) for name, weight in weights.items())
        tables = [pd.read_parquet(folder / name / "gate.parquet") for name in ("whole", "resumed")]
        assert tables[0].equals(tables[1])
        print("identical")
    # Left to the interpreter's end, a rank whose peer has gone may abort.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
