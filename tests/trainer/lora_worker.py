"""Runs with adapters that tests/trainer/test_lora.py launches on two processes, and repeats on one."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from torch import Tensor

from hpt_trl import HPTTrainer
from tests.tiny import fixed_rollouts
from tests.trainer.distributed_worker import SGD
from tests.trainer.sharded_worker import in_use, launched_trainer, movement, trained_weights, use_plain_collectives

torch.set_num_threads(1)

IDS = torch.arange(5, 25).view(2, 10)
"""Tokens whose log-probabilities are compared."""


def lora_trainer(config: str, model: str, folder: Path, processes: int, **options: Any) -> HPTTrainer:
    """A trainer of adapters on the same rollouts and from the same adapters, whatever the number of processes."""
    torch.manual_seed(0)
    adapters = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return launched_trainer(
        config, model, folder, trainer={"rollout_func": fixed_rollouts, "peft_config": adapters},
        gradient_accumulation_steps=4 // processes, **({"gate": "linear"} | options),
    )  # fmt: skip


def keep_batch(trainer: HPTTrainer) -> dict[str, Tensor]:
    """A dict that will hold the last batch this process generated."""
    batch: dict[str, Tensor] = {}
    generate = trainer._generate_and_score_completions

    def noting_generate(inputs):
        batch.update(generate(inputs))
        return dict(batch)

    trainer._generate_and_score_completions = noting_generate
    return batch


def run_kl(config: str, model: str, folder: Path, processes: int) -> dict[str, Any]:
    """Two steps of SGD with KL against the base: movement, losses, and the reference's log-probabilities."""
    trainer = lora_trainer(config, model, folder, processes, max_steps=2, beta=0.1, **SGD)
    batch = keep_batch(trainer)
    moved, losses = movement(trainer)
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "ref_per_token_logps")
    kept = {name: batch[name] for name in names}
    kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    return in_use(trainer) | {"moved": moved, "losses": losses, "kl": kl, "batch": kept}


def run_resume(config: str, model: str, folder: Path, processes: int) -> dict[str, Any]:
    """Four steps of AdamW, saved; and the last two of them again, from the checkpoint."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    trainer = lora_trainer(config, model, folder, processes, **options)
    trainer.train()
    trainer.save_model(str(folder / "saved"))
    with torch.no_grad():
        logps = trainer.model.eval()(IDS).logits.log_softmax(-1)
    again = lora_trainer(config, model, folder / "again", processes, **options)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    return {"logps": logps, "weights": trained_weights(trainer), "resumed": trained_weights(again)}


def main(config: str, model: str, folder: Path) -> None:
    """Both runs; the first process saves what came out."""
    use_plain_collectives()
    processes = int(os.environ["WORLD_SIZE"])
    results = {"kl": run_kl(config, model, folder / "kl", processes)}
    results["resume"] = run_resume(config, model, folder / "resume", processes)
    if PartialState().is_main_process:
        torch.save(results, folder / "results.pt")
    # Left to the interpreter's end, a rank whose peer has gone may abort.
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
