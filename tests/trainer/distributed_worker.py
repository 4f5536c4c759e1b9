"""Runs that tests/trainer/test_distributed.py launches on two processes and compares with one."""

import random
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from hpt_trl.trainer.forwards import _of_all_ranks
from tests.tiny import fixed_rollouts, make_trainer, parameters, rollouts_gate, scored_rollouts

torch.set_num_threads(1)

EQUAL_TO_GRPO = {
    "dr_grpo": {},
    "grpo": {"loss_type": "grpo"},
    "bnpo_kl": {"loss_type": "bnpo", "beta": 0.1},
    "dapo_regenerates_less": {"loss_type": "dapo", "steps_per_generation": 8},
    **{loss_type: {"loss_type": loss_type} for loss_type in ("bnpo", "dapo", "cispo", "sapo", "luspo", "vespo")},
}
SGD = {"optim": "sgd", "learning_rate": 1e-1, "max_grad_norm": 0.0}
EQUAL_TO_ONE_PROCESS = {
    "prompt": {"gate": "linear", "max_steps": 1},
    "token": {"gate": "linear", "max_steps": 1, "sft_normalization": "token"},
    "dapo": {"gate": "linear", "max_steps": 1, "loss_type": "dapo"},
    "patterns": {"max_steps": 8},
    "luffy": {"algorithm": "luffy", "max_steps": 1},
    "srft": {"algorithm": "srft", "max_steps": 1},
    "sft": {"algorithm": "sft", "max_steps": 1},
    # Two demonstrations for four prompts, the others of which are padding, and fourteen to measure the held-out loss.
    "warmup": {"gate": "linear", "max_steps": 2, "sft_warmup_steps": 1, "sft_warmup_holdout": 0.85},
    # Its learning rate, and an optimizer that begins as new after it.
    "warmup_momentum": {
        "gate": "linear",
        "max_steps": 4,
        "sft_warmup_steps": 2,
        "sft_warmup_learning_rate": 0.02,
        "optim_args": "momentum=0.9",
    },
    "checkpointing": {"gate": "linear", "max_steps": 1, "gradient_checkpointing": True},
    "reentrant": {
        "gate": "linear",
        "max_steps": 1,
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "budget": {"gate": "linear", "max_steps": 1, "max_tokens_per_forward": 24},
    "budget_one_row": {"max_steps": 8, "max_tokens_per_forward": 1},
    "old_logps": {"max_steps": 2, "num_iterations": 2},
    # Rollouts as of vLLM: one process has rows to compute where the other has none.
    "vllm": {"max_steps": 1},
    # Groups of 16 rows span both processes, of which one owns no first row.
    "spanning": {"gate": "linear", "max_steps": 1, "num_generations": 16},
}


def random_gate(solve_rate_P, step):
    """Every pattern the ranks could get out of step on: all or none of the prompts, one side only, nothing to do."""
    draw = random.Random(step)
    patterns = [["demonstration"] * 4, ["nothing"] * 4, ["demonstration", "demonstration", "nothing", "nothing"]]
    patterns.append([draw.choice(["rollouts", "demonstration", "nothing"]) for _ in range(4)])
    kinds = [patterns[step % 4][prompt % 4] for prompt in range(len(solve_rate_P))]
    return tuple(torch.tensor([float(kind == name) for kind in kinds]) for name in ("rollouts", "demonstration"))


def first_prompt_gate(solve_rate_P, step):
    """Rollouts of the first prompt, demonstrations of the others."""
    is_first_P = (torch.arange(len(solve_rate_P)) == 0).float()
    return is_first_P, 1 - is_first_P


def moved_parameters(model: str, folder: Path, processes: int, name: str) -> torch.Tensor:
    """How far the parameters move in a run on the same rollouts, whatever the number of processes."""
    options = SGD | {"gradient_accumulation_steps": 4 // processes} | EQUAL_TO_ONE_PROCESS[name]
    gate = {"gate": random_gate} if name in ("patterns", "budget_one_row") else {}
    gate |= {"gate": first_prompt_gate} if name == "vllm" else {}
    rollouts = scored_rollouts if name == "vllm" else fixed_rollouts
    trainer = make_trainer(model, folder, trainer={"rollout_func": rollouts, **gate}, **options)
    assert trainer.accelerator.num_processes == processes
    before = parameters(trainer).clone()
    trainer.train()
    return parameters(trainer) - before


def gathered_ratios() -> torch.Tensor:
    """Importance ratios of both ranks' rows, which are 3 tokens wide on one and 5 on the other."""
    width = 3 + 2 * PartialState().process_index
    return _of_all_ranks({"importance_sampling_ratio": torch.full((1, width), 0.5)})["importance_sampling_ratio"]


def main(model: str, folder: Path) -> None:
    """All runs on two processes; rank 0 saves what came out."""
    results = {}
    for name, options in EQUAL_TO_GRPO.items():
        for hpt in (False, True):
            shut = {"trainer": {"gate": rollouts_gate}, "skip_zero_signal_rollouts": False} if hpt else {}
            trainer = make_trainer(model, folder, hpt=hpt, gradient_accumulation_steps=2, **shut, **options)
            assert trainer.accelerator.distributed_type == DistributedType.MULTI_CPU
            assert trainer.accelerator.num_processes == 2
            results["start"] = parameters(trainer).clone()
            trainer.train()
            results[f"{name}/{'hpt' if hpt else 'grpo'}"] = parameters(trainer)
    results["ratios"] = gathered_ratios()
    for name in EQUAL_TO_ONE_PROCESS:
        results[name] = moved_parameters(model, folder, 2, name)
    if trainer.accelerator.is_main_process:
        torch.save(results, folder / "results.pt")
    # Left to the interpreter's end, a rank whose peer has gone may abort.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
