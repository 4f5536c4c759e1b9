"""Runs that test_sharded.py launches under each config of configs/accelerate, and repeats on one process."""

import faulthandler
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather, is_deepspeed_available
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from hpt_trl import HPTTrainer
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.tasks import dataset
from hpt_trl.verifier.verdicts import accuracy_reward
from tests.tiny import fixed_rollouts, make_trainer
from tests.trainer.distributed_worker import EQUAL_TO_ONE_PROCESS, SGD, random_gate

torch.set_num_threads(1)

# Under offload accelerate puts DeepSpeed's Adam in the place of any optimizer. An epsilon far above the gradients makes
# its movement nearly the gradient, in which a forward that was left out would show.
ADAM = {"optim": "adamw_torch", "adam_epsilon": 1.0, "gate": "linear", "max_steps": 2}
OFFLOAD_CASES = {"adam": ADAM, "adam_budget": ADAM | {"max_tokens_per_forward": 24}}
CASES = EQUAL_TO_ONE_PROCESS | OFFLOAD_CASES

STEPS_OF_PATTERNS = 200
SECONDS_A_STEP = 60
HALVES = {"left": [0, 1], "right": [2, 3], "even": [0, 2], "odd": [1, 3], "all": [0, 1, 2, 3], "none": []}


def use_plain_collectives() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives (75 CPU-seconds, and it needs a compiler)."""
    if is_deepspeed_available():
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def shard_on_cpu() -> None:
    """Let accelerate take FSDP2 on a CPU, where it would silently take plain DDP. To be called before the trainer."""
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def launched_trainer(config: str, *positional: Any, **options: Any) -> HPTTrainer:
    """`make_trainer` under a launch config."""
    return make_trainer(*positional, before_trainer=shard_on_cpu if config == "fsdp2" else None, **options)


def whole(parameter: Tensor) -> Tensor:
    """A copy of a parameter, gathered from the processes it is sharded over."""
    if isinstance(parameter, DTensor):
        return parameter.full_tensor().detach().clone()
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.detach().clone()


def trained_weights(trainer: HPTTrainer) -> dict[str, Tensor]:
    """What is trained, by name."""
    return {name: whole(each) for name, each in trainer.model.named_parameters() if each.requires_grad}


def movement(trainer: HPTTrainer) -> tuple[Tensor, list[float]]:
    """Train; returns how far the parameters moved, as one vector, and each step's loss over all processes."""
    micro_losses, training_step = [], trainer.training_step

    def noting_step(*args, **kwargs):
        micro_losses.append(training_step(*args, **kwargs))
        return micro_losses[-1]

    trainer.training_step = noting_step
    before = trained_weights(trainer)
    trainer.train()
    after = trained_weights(trainer)
    losses = gather(torch.stack(micro_losses).unsqueeze(0)).mean(dim=0)
    steps = losses.view(-1, trainer.args.gradient_accumulation_steps).sum(dim=1)
    return torch.cat([(after[name] - before[name]).flatten() for name in before]), steps.tolist()


def equality_trainer(config: str, model: str, folder: Path, processes: int, name: str) -> HPTTrainer:
    """A trainer on the same rollouts, whatever the number of processes."""
    options = SGD | {"gradient_accumulation_steps": 4 // processes} | CASES[name]
    gate = {"gate": random_gate} if name in ("patterns", "budget_one_row") else {}
    return launched_trainer(config, model, folder, trainer={"rollout_func": fixed_rollouts, **gate}, **options)


def in_use(trainer: HPTTrainer) -> dict[str, Any]:
    """What a trained trainer really ran on, and the share of the parameters that this process's optimizer steps."""
    accelerator, engine = trainer.accelerator, trainer.model_wrapped
    is_deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
    stage = engine.zero_optimization_stage() if is_deepspeed else None
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    if stage is None:
        own = [each.to_local() if isinstance(each, DTensor) else each for each in trained]
    else:
        name = "fp32_partitioned_groups_flat" if stage == 3 else "single_partition_of_fp32_groups"
        own = getattr(engine.optimizer, name)
    return {
        "distributed_type": accelerator.distributed_type.value,
        "num_processes": accelerator.num_processes,
        "stage": stage,
        "offloads": bool(is_deepspeed and engine.zero_cpu_offload()),
        "own_share": sum(map(torch.numel, own)) / sum(whole(each).numel() for each in trained),
    }


def pattern(step: int) -> list[list[float]]:
    """A step's weights of the rollouts and of the demonstrations of 4 prompts, two on each process."""
    draw = random.Random(step)
    on_demonstration = HALVES.get(draw.choice([*HALVES, "random"]), [p for p in range(4) if draw.random() < 0.5])
    # The others learn from their rollouts, from nothing, or each from either.
    rest = draw.choice([[1.0] * 4, [0.0] * 4, [float(draw.random() < 0.5) for _ in range(4)]])
    return [
        [0.0 if p in on_demonstration else rest[p] for p in range(4)],
        [float(p in on_demonstration) for p in range(4)],
    ]


def pattern_gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The step's pattern, whatever the verdicts."""
    rollouts_P, demonstration_P = torch.tensor(pattern(step))
    place_P = torch.arange(len(solve_rate_P)) % len(rollouts_P)  # the trainer first asks for every solve rate
    return rollouts_P[place_P], demonstration_P[place_P]


def one_sided_gate(solve_rate_P: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Demonstrations for all prompts of one process and none of the other's, by turns; rollouts in odd steps only."""
    first_half_P = torch.arange(len(solve_rate_P)) < len(solve_rate_P) // 2
    demonstration_P = (first_half_P if step % 4 < 2 else ~first_half_P).float()
    return (1 - demonstration_P) * (step % 2), demonstration_P


class Watchdog(TrainerCallback):
    """Ends this process, with the stack of every thread, if an optimizer step takes too long."""

    def on_step_begin(self, args, state, control, **kwargs):
        faulthandler.dump_traceback_later(SECONDS_A_STEP, exit=True)

    def on_train_end(self, args, state, control, **kwargs):
        faulthandler.cancel_dump_traceback_later()


def watched(trainer: HPTTrainer) -> dict[str, Any]:
    """Train under the watchdog; returns what was in use and logged."""
    trainer.add_callback(Watchdog())
    trainer.train()
    return in_use(trainer) | {"log": trainer.state.log_history}


def run_patterns(config: str, model: str, folder: Path, **options: Any) -> dict[str, Any]:
    """200 steps of real generation, each with a pattern of its own."""
    options = {"max_steps": STEPS_OF_PATTERNS, "gradient_accumulation_steps": 2} | options
    return watched(launched_trainer(config, model, folder, trainer={"gate": pattern_gate}, **options))


def run_miniature(config: str, model: str, folder: Path, **options: Any) -> dict[str, Any]:
    """The bundled model on its tasks, its model saved as a user's is."""
    options = {"max_steps": 4, "gradient_accumulation_steps": 2, "max_completion_length": 24} | options
    trainer = launched_trainer(
        config, MODEL_PATH, folder, rows=dataset(64, 0, "train"), reward=accuracy_reward,
        trainer={"gate": one_sided_gate}, **options,
    )  # fmt: skip
    results = watched(trainer)
    trainer.save_model(str(folder / "saved"))
    weights = trained_weights(trainer)
    if trainer.accelerator.is_main_process:
        torch.save(weights, folder / "weights.pt")
    return results


def run_equality(config: str, model: str, folder: Path, name: str) -> dict[str, Any]:
    """One of the cases."""
    trainer = equality_trainer(config, model, folder, int(os.environ["WORLD_SIZE"]), name)
    moved, losses = movement(trainer)
    return in_use(trainer) | {"moved": moved, "losses": losses}


RUNS: dict[str, Callable[..., dict[str, Any]]] = {
    "patterns_200": run_patterns,
    # Rows stay on their process, which then has demonstrations while the other has none.
    "patterns_200_unspread": lambda *args: run_patterns(*args, loss_type="bnpo"),
    "miniature": run_miniature,
    "miniature_unspread": lambda *args: run_miniature(*args, loss_type="bnpo"),
}


def main(config: str, model: str, folder: Path, *names: str) -> None:
    """All named runs, one after the other; the first process saves what came out."""
    use_plain_collectives()
    results = {}
    for name in names:
        place = folder / name
        results[name] = RUNS[name](config, model, place) if name in RUNS else run_equality(config, model, place, name)
    if PartialState().is_main_process:
        torch.save(results, folder / "results.pt")
    # Left to the interpreter's end, a rank whose peer has gone may abort.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
