"""A run of several backward passes per optimizer step, for test_offload.py: under DeepSpeed, and without it.

python -m tests.trainer.offload_worker MODEL FILE
"""

import sys
from pathlib import Path

import torch

from hpt_trl import HPTTrainer
from tests.tiny import fixed_rollouts, make_trainer
from tests.trainer.distributed_worker import SGD
from tests.trainer.sharded_worker import ADAM, movement, use_plain_collectives

torch.set_num_threads(1)
ROWS = 16


def offload_trainer(model: str, folder: Path, processes: int) -> HPTTrainer:
    """A trainer that does not accumulate, with a forward and a backward pass for every few rows."""
    one_micro_batch = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": ROWS // processes}
    options = SGD | ADAM | one_micro_batch | {"max_tokens_per_forward": 24}
    return make_trainer(model, folder, trainer={"rollout_func": fixed_rollouts}, **options)


def main(model: str, file: str) -> None:
    use_plain_collectives()
    trainer = offload_trainer(model, Path(file).with_suffix(""), 2)
    config = trainer.accelerator.state.deepspeed_plugin.hf_ds_config
    results = {
        "moved": movement(trainer)[0],
        "offloads": config.is_offload(),
        "processes": trainer.accelerator.num_processes,
    }
    if trainer.is_world_process_zero():
        torch.save(results, file)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
