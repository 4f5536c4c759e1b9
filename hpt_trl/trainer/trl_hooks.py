"""Private names of TRL, transformers and accelerate that this folder uses, checked against the installed releases.

Signatures are checked at import, attributes when a trainer is built and
when it starts to train: `check_attributes`. All checks end in the same message.
"""

import functools
import inspect
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import accelerate
import torch
import transformers
import trl
from accelerate import Accelerator
from accelerate.state import GradientState
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

TESTED = {"trl": "1.16.0", "transformers": "5.23.0", "accelerate": "1.15.0"}

_LOGGED_LISTS = ("prompt", "completion", "advantages")
_LOGGED_TABLES = ("rewards", "extra")
_GENERATED_PARTS = 8  # of the result of `_generate`
_ANY = "..."  # further parameters are forwarded unchanged

_SIGNATURES = {
    (GRPOTrainer, "__init__"): [
        "self",
        "model",
        "reward_funcs",
        "args",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "reward_processing_classes",
        "callbacks",
        "optimizers",
        "quantization_config",
        "peft_config",
        "tools",
        "rollout_func",
        "environment_factory",
    ],
    (GRPOTrainer, "_calculate_rewards"): ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    (GRPOTrainer, "_generate_and_score_completions"): ["self", "inputs"],
    (GRPOTrainer, "_generate"): ["self", "prompts"],
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
    (GRPOTrainer, "_log_completion_extra"): ["self", "column", "values"],
    (GRPOTrainer, "_get_train_sampler"): ["self", "dataset"],
    (GRPOTrainer, "_save_checkpoint"): ["self", "model", "trial"],
    (GRPOTrainer, "create_model_card"): ["self", "model_name", "dataset_name", "tags"],
    (GRPOTrainer, "compute_loss"): ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    (Trainer, "_get_output_dir"): ["self", "trial"],
    (Trainer, "_get_grad_norm"): ["self", "model", "grad_norm"],
    (Trainer, "_get_learning_rate"): ["self"],
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
    (Trainer, "_load_from_checkpoint"): ["self", "resume_from_checkpoint", "model"],
    (Trainer, "_load_optimizer_and_scheduler"): ["self", "checkpoint"],
    (Trainer, "_evaluate"): ["self", "trial", "ignore_keys_for_eval", "skip_scheduler"],
    (Trainer, "_load_rng_state"): ["self", "checkpoint"],
    (Trainer, "_finalize_training"): ["self", "trial", "num_train_samples", "start_time"],
    (Trainer, "init_hf_repo"): ["self", _ANY],
    (Trainer, "push_to_hub"): ["self", _ANY],
    (Trainer, "_push_from_checkpoint"): ["self", "checkpoint_folder"],
    (Trainer, "_finish_current_push"): ["self"],
    (Trainer, "save_model"): ["self", "output_dir", "_internal_call"],
    (GradientState, "_set_sync_gradients"): ["self", "sync_gradients"],
}

_ATTRIBUTES = (
    "_buffered_inputs",
    "_current_train_step_time",
    "_entropy_bonus_enabled",
    "_is_vlm",
    "_logs",
    "_metrics",
    "_name",
    "_paper",
    "_pending_extra_logs",
    "_pending_metrics",
    "_step",
    "_tag_names",
    "_tokenizer",
    "aux_loss_enabled",
    "chat_template",
    "chat_template_kwargs",
    "environment_factories",
    "eos_token_ids",
    "num_generations_eval",
    "reward_func_names",
    "reward_weights",
    "top_entropy_quantile",
)
# transformers sets these when training begins.
_TRAINING_ATTRIBUTES = ("_globalstep_last_logged", "_total_loss_scalar", "_tr_loss")

# How TRL's loss divides: by rows, by tokens of the micro-batch, or by a count that it took at generation.
_DENOMINATORS = {
    "bnpo": "tokens",
    "cispo": "generation",
    "dapo": "generation",
    "dr_grpo": "rows",
    "grpo": "rows",
    "luspo": "rows",
    "sapo": "rows",
    "vespo": "generation",
}


def _unsupported(what: str) -> ImportError:
    installed = {module.__name__: module.__version__ for module in (trl, transformers, accelerate)}
    versions = " ".join(f"'{name}=={version}'" for name, version in TESTED.items())
    return ImportError(
        f"hpt_trl does not support the installed releases, {installed}: {what}. Install the tested ones: pip install "
        f"{versions}."
    )


def check_signatures() -> None:
    """Raise ImportError if a private method that we override or call has other parameters than those tested."""
    for (owner, name), expected in _SIGNATURES.items():
        method = getattr(owner, name, None)
        found = list(inspect.signature(method).parameters) if method else None
        is_prefix = expected[-1] == _ANY
        if not found or (found[: len(expected) - 1] != expected[:-1] if is_prefix else found != expected):
            raise _unsupported(
                f"{owner.__name__}.{name}({', '.join(expected)}) is needed, but it has {found or 'no such method'}"
            )


def check_attributes(trainer: GRPOTrainer, is_training: bool = False) -> None:
    """Raise ImportError if a private attribute that we use is missing.

    Args:
        trainer: a trainer whose `__init__` is done.
        is_training: check those that are set when training begins.
    """
    missing = [name for name in (_TRAINING_ATTRIBUTES if is_training else _ATTRIBUTES) if not hasattr(trainer, name)]
    if missing:
        raise _unsupported(f"GRPOTrainer has no attributes {missing}")


def check_loss_type(loss_type: str) -> None:
    """Raise ValueError for a loss of TRL's whose normalization is not known here.

    The scale of the gradient of a subset of rows depends on it.
    """
    if loss_type not in _DENOMINATORS:
        raise ValueError(
            f"hpt_trl does not know how TRL normalizes loss_type={loss_type!r}, so it cannot leave out rows. Set "
            f"gate='off' or one of {sorted(_DENOMINATORS)}."
        )


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
        Columns with one entry per rollout: `prompt`, `completion`, and by name `rewards` (NaN where not scored) and
        `extra`.
    """
    return {name: trainer._logs[name] for name in ("prompt", "completion", "rewards", "extra")}


class Generated(NamedTuple):
    """What TRL passes to `_calculate_rewards` for B rollouts, beside their data rows."""

    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]
    extra_fields: dict[str, Any]  # of a `rollout_func`, which TRL adds to the data rows

    @classmethod
    def of(cls, prompts: list[Any], generated: tuple) -> "Generated":
        """From the argument and the result of TRL's `_generate`."""
        if len(generated) != _GENERATED_PARTS:
            raise _unsupported(f"GRPOTrainer._generate returned {len(generated)} parts instead of {_GENERATED_PARTS}")
        _, completion_ids, _, completions, _, extra_fields, *_ = generated
        return cls(prompts, completions, completion_ids, extra_fields)

    def add_extra_fields(self, examples: Sequence[dict[str, Any]]) -> None:
        """Add the extra fields to the data rows, as TRL does before it asks for rewards."""
        for row, example in enumerate(examples):
            for name, values in self.extra_fields.items():
                if not isinstance(values, list):
                    example[name] = values
                elif row < len(values):
                    example[name] = values[row]


def has_advantage(trainer: GRPOTrainer, total_P_G: Tensor) -> Tensor:
    """(P * G,) False where TRL's advantage will be exactly 0, before TRL has computed it.

    Args:
        trainer: says how TRL combines several rewards.
        total_P_G: (P, G) weighted sums of the rewards of each rollout, NaN where it could not be scored.
    """
    if trainer.multi_objective_aggregation != "sum_then_normalize":
        return torch.ones_like(total_P_G, dtype=torch.bool).flatten()
    return (total_P_G - total_P_G.nanmean(dim=1, keepdim=True)).nan_to_num().flatten() != 0


def zero_advantage_rows_matter(trainer: GRPOTrainer) -> bool:
    """Whether a rollout with advantage 0 can change the policy or the loss of another row.

    KL, entropy bonus and auxiliary loss apply to every token; the entropy quantile is taken over all rows.
    """
    return bool(
        trainer.beta != 0.0
        or trainer._entropy_bonus_enabled
        or trainer.aux_loss_enabled
        or trainer.top_entropy_quantile < 1.0
    )


def rows_are_independent(trainer: GRPOTrainer) -> bool:
    """Whether the loss of a rollout is the same in any micro-batch.

    `bnpo`, entropy bonus and auxiliary loss average over the tokens of a micro-batch; the entropy quantile is taken
    over them. Images stay where TRL put them.
    """
    averages = trainer._entropy_bonus_enabled or trainer.aux_loss_enabled or trainer.top_entropy_quantile < 1.0
    return not (averages or trainer._is_vlm) and _DENOMINATORS.get(trainer.loss_type) in ("rows", "generation")


def weights_are_sharded(trainer: GRPOTrainer) -> bool:
    """Whether parameters are gathered from other ranks for every forward pass."""
    return trainer.is_fsdp_enabled or is_deepspeed_zero3_enabled()


@contextmanager
def gradients_kept_local(accelerator: Accelerator, model: Any) -> Iterator[Callable[[Tensor], None]]:
    """A forward pass and a backward that do not complete the micro-batch: nothing is reduced or stepped yet.

    Yields:
        The function that backpropagates a loss.
    """
    state = accelerator.gradient_state
    synchronizes = state.sync_gradients
    is_deepspeed = accelerator.state.deepspeed_plugin is not None
    # DDP waits for the last pass. Sharded gradients add up as they are reduced: waiting would hold them unsharded.
    is_sharded = is_deepspeed or getattr(accelerator.state, "fsdp_plugin", None) is not None

    def backward(loss: Tensor) -> None:
        # DeepSpeed's engine would take its step in the backward of the last micro-batch of the step.
        state._set_sync_gradients(False)
        try:
            accelerator.backward(loss, **({"scale_wrt_gas": False} if is_deepspeed else {}))
        finally:
            state._set_sync_gradients(synchronizes)

    with accelerator.no_sync(model) if synchronizes and not is_sharded else nullcontext():
        yield backward


def save_model_without_pushing(trainer: Trainer, folder: str) -> None:
    """Save the model; `save_model` called by its user would push at once, before the state of the run is beside it."""
    trainer.save_model(folder, _internal_call=True)


def run_state(trainer: GRPOTrainer) -> dict[str, Any]:
    """The state between two optimizer steps that transformers does not save: rollouts to train on, metrics to log.

    It consists of tensors, numbers, strings, and lists and dicts of them. TRL saves its entropy controller itself.
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
        # Extra columns hold whatever the user's reward functions logged; JSON is safe to load.
        "logs": json.dumps(logs, default=str),
        "loss": trainer._tr_loss,
        "logged_loss": trainer._total_loss_scalar,
        "logged_step": trainer._globalstep_last_logged,
    }


def reset_run_state(trainer: GRPOTrainer) -> None:
    """Forget what an aborted `train()` of the same trainer left behind, before a checkpoint is restored."""
    trainer._step, trainer._buffered_inputs, trainer._current_train_step_time = 0, None, 0.0
    table = cast(dict[str, Any], trainer._logs)
    collected = [trainer._metrics["train"], trainer._pending_metrics, trainer._pending_extra_logs]
    for values in [*collected, *(table[name] for name in (*_LOGGED_LISTS, *_LOGGED_TABLES))]:
        values.clear()


def restore_run_state(trainer: GRPOTrainer, state: Mapping[str, Any]) -> None:
    """Restore what `run_state` returned, when training begins."""
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
    # The final loss is a mean over the steps since then; its sum now covers the complete run. transformers before 5.23
    # keeps this number in a local variable.
    trainer._initial_global_step = 0


def loss_scale_of_subset(loss_type: str, generated: Mapping[str, Any], subset: Mapping[str, Any]) -> Tensor | float:
    """Factor that gives TRL's loss on some rows the denominator of all rows that were generated.

    Args:
        loss_type: TRL's `loss_type`.
        generated: a micro-batch as TRL cut it, B rows.
        subset: the rows that are passed to TRL's loss instead, or as a part of it.

    Returns:
        Rows of the subset over rows generated where TRL averages rows, token shares where it averages the tokens of the
        micro-batch (`bnpo`), and 1 where it divides by a count that it took at generation.

    Raises:
        ValueError: for an unknown loss type.
    """
    check_loss_type(loss_type)
    denominator = _DENOMINATORS[loss_type]
    if denominator == "generation":
        return 1.0
    if denominator == "tokens":
        return _loss_tokens(subset).clamp(min=1.0) / _loss_tokens(generated).clamp(min=1.0)
    return subset["completion_ids"].size(0) / generated["completion_ids"].size(0)


def _loss_tokens(batch: Mapping[str, Any]) -> Tensor:
    mask = batch["completion_mask"]
    return (mask * batch["tool_mask"] if batch.get("tool_mask") is not None else mask).sum().float()


check_signatures()
