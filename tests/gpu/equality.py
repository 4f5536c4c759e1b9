"""The same numbers as GRPOTrainer, as a loop written by hand, in any cut, and after a resume."""

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import is_triton_available

from hpt_trl.miniature import MODEL_PATH
from tests.gpu.setting import Finding, Setting, at_most
from tests.tiny import (
    ROWS,
    fixed_rollouts,
    make_trainer,
    parameters,
    relative_error,
    step_gradient,
    trained_parameters,
)

PRECISIONS = {"float32": False, "bf16": True}


def free_memory() -> None:
    """Give back what trainers that are gone have left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def gate_off(setting: Setting) -> Iterator[Finding]:
    """Two steps of GRPOTrainer, the same again, and HPTTrainer with the gate off."""

    def trained(hpt: bool, **options: Any) -> torch.Tensor:
        free_memory()
        folder, model = setting.run_folder("gate_off"), setting.model("0.5b")
        return trained_parameters(model, folder, hpt=hpt, max_steps=2, **setting.options, **options).cpu()

    for precision, bf16 in PRECISIONS.items():
        grpo, hpt = trained(False, bf16=bf16), trained(True, bf16=bf16, gate="off")
        more = {"bitwise": torch.equal(grpo, hpt)}
        if not more["bitwise"]:
            # Kernels that are not deterministic change GRPO's own numbers from run to run.
            more["grpo_repeated"] = relative_error(trained(False, bf16=bf16), grpo)
        limit = 2 * more.get("grpo_repeated", 0.0)
        yield at_most(f"gate off equals GRPOTrainer, {precision}", relative_error(hpt, grpo), limit, **more)


def hand_made_gradient(setting: Setting, bf16: bool) -> torch.Tensor:
    """Gradient of plain cross-entropy over the demonstrations of a step, one sequence at a time, from full logits."""
    free_memory()
    model_path = setting.model("0.5b")
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).to(setting.device)
    for row in ROWS.select(range(4)):
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["demonstration"])["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([prompt + answer], device=setting.device)
        with torch.autocast(setting.device, torch.bfloat16, enabled=bf16):
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        (cross_entropy(logits.float(), ids[0, len(prompt) :]) / 4).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).cpu()


def demonstration_gradient(setting: Setting) -> Iterator[Finding]:
    """Four demonstrations, whose gradient a loop over plain cross-entropy gives too."""

    def trainer_gradient(bf16: bool) -> torch.Tensor:
        free_memory()
        options = {"gate_threshold": 1.0, "bf16": bf16} | setting.options
        return step_gradient(setting.model("0.5b"), setting.run_folder("demonstrations"), **options).cpu()

    triton = {"triton": setting.device == "cuda" and is_triton_available()}
    exact = hand_made_gradient(setting, bf16=False)
    yield at_most(
        "demonstration's gradient equals a loop's, float32", relative_error(trainer_gradient(False), exact), 1e-4,
        **triton,
    )  # fmt: skip
    loop_error = relative_error(hand_made_gradient(setting, bf16=True), exact)
    yield at_most(
        "demonstration's gradient, bf16: error / that of a loop in bf16",
        relative_error(trainer_gradient(True), exact) / loop_error, 1.5, loop_error=loop_error, **triton,
    )  # fmt: skip


def micro_batch_cuts(setting: Setting) -> Iterator[Finding]:
    """The same 16 rows as 1, 2 and 4 micro-batches."""

    def gradient(cuts: int) -> torch.Tensor:
        free_memory()
        cut = {"per_device_train_batch_size": 16 // cuts, "gradient_accumulation_steps": cuts}
        options = {"gate": "linear", "trainer": {"rollout_func": fixed_rollouts}} | cut | setting.options
        return step_gradient(setting.model("0.5b"), setting.run_folder("cuts"), **options).cpu()

    one = gradient(1)
    error = max(relative_error(gradient(cuts), one) for cuts in (2, 4))
    yield at_most("gradient does not depend on micro-batches, float32", error, 1e-5)


def resume(setting: Setting) -> Iterator[Finding]:
    """Four steps of the bundled model, and the last two of them again from the checkpoint between them."""
    free_memory()
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "gate_threshold": 0.25} | setting.options
    first = make_trainer(MODEL_PATH, setting.run_folder("resume"), **options)
    first.train()
    again = make_trainer(MODEL_PATH, setting.run_folder("resumed"), **options)
    again.train(resume_from_checkpoint=str(setting.folder / "resume" / "checkpoint-2"))
    error = relative_error(parameters(again), parameters(first))
    yield at_most("resumed run ends as the uninterrupted one", error, 0.0)


CHECKS = (gate_off, demonstration_gradient, micro_batch_cuts, resume)
