"""DeepSpeed ZeRO and FSDP2 on one GPU with NCCL: the launch configs themselves, against a run without them.

accelerate launch --config_file CONFIG -m tests.gpu.sharded zero2 DEVICE MODEL FOLDER
"""

import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from tests.gpu.setting import Check, Finding, Setting, at_most
from tests.launch import accelerate, cpu_form, run_all
from tests.tiny import fixed_rollouts, make_trainer, relative_error
from tests.trainer.distributed_worker import SGD
from tests.trainer.sharded_worker import in_use, movement, shard_on_cpu, use_plain_collectives

SECONDS = 90
ONE_PROCESS = {"mixed_precision": "no", "num_machines": 1, "num_processes": 1, "main_process_port": 0}
# Large enough that rounding of the weights does not show in how far they move.
LARGE_STEP = SGD | {"learning_rate": 10.0}
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "fsdp2": None}


def moved(config: str, device: str, model: str, folder: Path) -> dict[str, Any]:
    """How far a step of SGD on the same rollouts moves the parameters, and what it ran on."""
    on_cpu = device == "cpu"
    trainer = make_trainer(
        model, folder, trainer={"rollout_func": fixed_rollouts}, gate="linear", max_steps=1, use_cpu=on_cpu,
        before_trainer=shard_on_cpu if config == "fsdp2" and on_cpu else None, **LARGE_STEP,
    )  # fmt: skip
    movement_vector, losses = movement(trainer)
    backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else None
    used = in_use(trainer) if config in STAGES else {}
    return used | {"moved": movement_vector.cpu(), "losses": losses, "backend": backend}


@cache
def moved_without_launcher(setting: Setting) -> torch.Tensor:
    """The same in this process."""
    return moved("none", setting.device, setting.model("0.5b"), setting.run_folder("no_launcher"))["moved"]


def launch(setting: Setting, config: str) -> Iterator[Finding]:
    """One launch config on one process."""
    folder, model = setting.run_folder(config), setting.model("0.5b")
    arguments = ["-m", "tests.gpu.sharded", config, setting.device, model, str(folder)]
    run_all([accelerate(cpu_form(config, folder, ONE_PROCESS), *arguments)], folder, SECONDS)
    found = torch.load(folder / "moved.pt")
    expected_backend = "nccl" if setting.device == "cuda" else "gloo"
    used = [found["distributed_type"], found["stage"], found["backend"]]
    expected = ["FSDP" if config == "fsdp2" else "DEEPSPEED", STAGES[config], expected_backend]
    yield Finding(f"{config} is in use", f"{used}", f"{expected}", used == expected)
    plain = moved("none", setting.device, model, folder)
    yield at_most(
        f"{config} moves the parameters as no launcher does", relative_error(found["moved"], plain["moved"]), 1e-5
    )


def checks(setting: Setting) -> tuple[Check, ...]:
    """One check per launch config."""
    return tuple(partial(launch, config=config) for config in setting.sizes.launches)


def main(config: str, device: str, model: str, folder: str) -> None:
    """The launched process."""
    use_plain_collectives()
    torch.save(moved(config, device, model, Path(folder)), Path(folder) / "moved.pt")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
