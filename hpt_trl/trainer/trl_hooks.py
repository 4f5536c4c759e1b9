"""Every private name of TRL and transformers that HPT leans on, checked at import against the installed release.

Tested with trl 1.16.0 and transformers 5.23.0. `trainer.py` is the only other module that may use these names.
"""

import functools
import inspect
import json
import types
from collections.abc import Mapping
from typing import Any, cast

import trl
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

TESTED_TRL = "1.16.0"

_LOGGED_LISTS = ("prompt", "completion", "advantages")
_LOGGED_TABLES = ("rewards", "extra")
_ANY = "..."  # what follows is handed on as it comes

_SIGNATURES = {
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_generate"): ["self", _ANY],
    (GRPOTrainer, "_generate_single_turn"): ["self", _ANY],
    (GRPOTrainer, "_get_per_token_logps_and_entropies"): [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        _ANY,
    ],
    (GRPOTrainer, "_prepare_inputs"): ["self", "generation_batch"],
    (GRPOTrainer, "_tokenize_prompts"): ["self", "prompts"],
    (GRPOTrainer, "_get_train_sampler"): ["self", "dataset"],
    (GRPOTrainer, "_save_checkpoint"): ["self", "model", "trial"],
    (GRPOTrainer, "create_model_card"): ["self", "model_name", "dataset_name", "tags"],
    (GRPOTrainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (Trainer, "_get_grad_norm"): ["self", "model", "grad_norm"],
    (Trainer, "_init_training_state"): [
        "self",
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ],
    (Trainer, "get_batch_samples"): ["self", "epoch_iterator", "num_batches", "device"],
    (Trainer, "_save_rng_state"): ["self", "output_dir"],
    (Trainer, "_finalize_training"): ["self", "trial", "num_train_samples", "start_time"],
    (Trainer, "init_hf_repo"): ["self", _ANY],
    (Trainer, "push_to_hub"): ["self", _ANY],
    (Trainer, "_push_from_checkpoint"): ["self", "checkpoint_folder"],
    (Trainer, "_finish_current_push"): ["self"],
}


def check_signatures() -> None:
    """Raise ImportError if the installed TRL or transformers moved a method that HPT overrides."""
    for (owner, name), expected in _SIGNATURES.items():
        method = getattr(owner, name, None)
        found = list(inspect.signature(method).parameters) if method else None
        hands_on = expected[-1] == _ANY
        if not found or (found[: len(expected) - 1] != expected[:-1] if hands_on else found != expected):
            raise ImportError(
                f"hpt_trl overrides {owner.__name__}.{name}({', '.join(expected)}), but trl {trl.__version__} has "
                f"{found or 'no such method'}. Install the tested release: pip install 'trl=={TESTED_TRL}'."
            )


check_signatures()


def add_demonstration_head(model: PreTrainedModel, cast_lm_head_to_fp32: bool) -> None:
    """Let `model(..., fused_lm_head=True, demonstration=True)` score tokens at temperature 1.

    TRL's fused head divides the logits by the sampling temperature, which is right for rollouts and wrong for a
    demonstration. This adds TRL's head a second time, at temperature 1, and leaves every other call as it was.

    Args:
        model: the unwrapped policy, already patched by GRPOTrainer.
        cast_lm_head_to_fp32: TRL's option of that name.
    """
    rollout_forward = model.forward
    add_fused_lm_head(
        model, temperature=1.0, cast_lm_head_to_fp32=cast_lm_head_to_fp32, outputs=("log_probs", "entropy")
    )
    demonstration_forward = model.forward

    # `generate` validates its model kwargs against this signature.
    @functools.wraps(type(model).forward)
    def forward(self: PreTrainedModel, *args: Any, demonstration: bool = False, **kwargs: Any) -> Any:
        return (demonstration_forward if demonstration else rollout_forward)(*args, **kwargs)

    model.forward = types.MethodType(forward, model)


def latest_rollouts(trainer: GRPOTrainer) -> dict[str, Any]:
    """The last generation of all processes, as TRL keeps it for its table of completions.

    Returns:
        Columns of a row a rollout: `prompt`, `completion`, and by name `rewards` (NaN where unscorable) and `extra`.
    """
    return {name: trainer._logs[name] for name in ("prompt", "completion", "rewards", "extra")}


def acts_without_advantage(trainer: GRPOTrainer) -> bool:
    """Whether a rollout of advantage 0 can still move the policy or the loss of another row.

    KL, entropy bonus and auxiliary loss act on every token; the entropy quantile is taken over all rows.
    """
    return bool(
        trainer.beta != 0.0
        or trainer._entropy_bonus_enabled
        or trainer.aux_loss_enabled
        or trainer.top_entropy_quantile < 1.0
    )


def rows_are_independent(trainer: GRPOTrainer) -> bool:
    """Whether a rollout's loss is the same in any micro-batch.

    `bnpo`, entropy bonus and auxiliary loss average the micro-batch's tokens, the entropy quantile is taken over them.
    """
    averages = trainer._entropy_bonus_enabled or trainer.aux_loss_enabled or trainer.top_entropy_quantile < 1.0
    return not averages and trainer.loss_type != "bnpo"


def weights_are_sharded(trainer: GRPOTrainer) -> bool:
    """Whether parameters are gathered from other ranks for every forward."""
    return trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()


def run_state(trainer: GRPOTrainer) -> dict[str, Any]:
    """What a run knows between two optimizer steps and transformers does not save: rollouts left to train on, metrics.

    Tensors, numbers, texts, and lists and dicts of them. TRL saves its entropy controller itself.
    """
    args, table = cast(GRPOConfig, trainer.args), cast(dict[str, Any], trainer._logs)
    next_generates = trainer._step % (cast(int, args.steps_per_generation) * trainer.num_iterations) == 0
    logs: dict[str, Any] = {}
    if trainer.log_completions:
        logs = {name: list(table[name]) for name in _LOGGED_LISTS}
        logs |= {name: {key: list(values) for key, values in table[name].items()} for name in _LOGGED_TABLES}
    return {
        "micro_step": trainer._step,
        "rollouts": None if next_generates else trainer._buffered_inputs,
        "metrics": {name: [float(value) for value in values] for name, values in trainer._metrics["train"].items()},
        # Extra columns hold whatever the user's reward functions logged: as text it is safe to load.
        "logs": json.dumps(logs, default=str),
        "loss": trainer._tr_loss,
        "logged_loss": trainer._total_loss_scalar,
        "logged_step": trainer._globalstep_last_logged,
    }


def restore_run_state(trainer: GRPOTrainer, state: Mapping[str, Any]) -> None:
    """Take up what `run_state` gave, when training begins."""
    trainer._step = state["micro_step"]
    trainer._buffered_inputs = state["rollouts"]
    trainer._metrics["train"].update(state["metrics"])
    logs, table = json.loads(state["logs"]), cast(dict[str, Any], trainer._logs)
    for name in _LOGGED_LISTS if logs else ():
        table[name].extend(logs[name])
    for name in _LOGGED_TABLES if logs else ():
        for key, values in logs[name].items():
            table[name][key].extend(values)
    trainer._tr_loss = state["loss"]
    trainer._total_loss_scalar = state["logged_loss"]
    trainer._globalstep_last_logged = state["logged_step"]
    # The closing loss is a mean over the steps since then: of the whole run, as its sum now is.
    trainer._initial_global_step = 0


def passed_share(loss_type: str, generated: Mapping[str, Any], passed: Mapping[str, Any]) -> Tensor | float:
    """Factor that gives TRL's loss of some rows the denominator of all rows that were generated.

    Args:
        loss_type: TRL's `loss_type`.
        generated: a micro-batch as TRL cut it, B rows.
        passed: the rows handed to TRL's loss in its stead, or as a part of it.

    Returns:
        Rows passed over rows generated where TRL averages rows, token shares where it averages the micro-batch's
        tokens (`bnpo`), and 1 where it divides by a count it took at generation.
    """
    if loss_type in ("cispo", "dapo", "vespo"):
        return 1.0
    if loss_type == "bnpo":
        return _loss_tokens(passed).clamp(min=1.0) / _loss_tokens(generated).clamp(min=1.0)
    return passed["completion_ids"].size(0) / generated["completion_ids"].size(0)


def _loss_tokens(batch: Mapping[str, Any]) -> Tensor:
    mask = batch["completion_mask"]
    return (mask * batch["tool_mask"] if batch.get("tool_mask") is not None else mask).sum().float()
