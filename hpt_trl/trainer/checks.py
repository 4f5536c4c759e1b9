"""What the trainers reject before a run starts, instead of failing late or ignoring it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset, IterableDataset
from transformers import AutoConfig

from hpt_trl.algorithm.estimator import given
from hpt_trl.algorithm.gate import Gate
from hpt_trl.algorithm.presets import ALGORITHMS, Algorithm
from hpt_trl.common.imports import is_dotted_path
from hpt_trl.config import HPTConfig
from hpt_trl.data.usable_rows import prompt_fault
from hpt_trl.durability.config import DurableGRPOConfig
from hpt_trl.trainer.data_checks import check_demonstrations, longest_prompt
from hpt_trl.trainer.trl_hooks import check_loss_type

# Options of TRL's loss on rollouts that the estimator's does not have, with the value at which they do nothing.
_TRL_ONLY = {
    "beta": 0.0,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "delta": None,
    "epsilon": 0.2,
    "epsilon_high": None,
    "importance_sampling_level": "token",
}

# Entries of model_init_kwargs that say how to load a model and not which.
_LOADING = {
    "attn_implementation", "device_map", "dtype", "quantization_config", "revision", "torch_dtype",
    "trust_remote_code", "use_cache",
}  # fmt: skip


def check_arguments(args: HPTConfig, gate: Gate | None, algorithm: Algorithm | None) -> None:
    """Reject another trainer's config, and a gate or an algorithm that is given twice."""
    if not isinstance(args, HPTConfig):
        raise TypeError(
            f"HPTTrainer takes an HPTConfig, got {type(args).__name__}. Rename it: all its options are valid."
        )
    if gate is not None and (args.sets_gate_options or is_dotted_path(args.gate)):
        raise ValueError(
            f"HPTTrainer got a gate as an argument and another one in args (gate={args.gate!r}, gate_threshold="
            f"{args.gate_threshold}). Leave the gate options of HPTConfig at their defaults."
        )
    if algorithm is not None and args.algorithm != "hpt":
        raise ValueError(
            f"HPTTrainer got an algorithm as an argument and {args.algorithm!r} in args. Leave HPTConfig's algorithm "
            "at its default."
        )
    preset = algorithm or ALGORITHMS[args.algorithm]
    if preset.prescribed_gate and args.sets_gate_options:
        raise ValueError(
            "This algorithm prescribes its own gate, so the gate options would be ignored: got gate="
            f"{args.gate!r}, gate_threshold={args.gate_threshold}. Leave them at their defaults."
        )
    chooses = gate is not None or args.gate == "off" or is_dotted_path(args.gate)
    if chooses and not (preset.rollouts and preset.demonstrations):
        raise ValueError(
            "A gate chooses between rollouts and demonstrations, but this algorithm uses only one of them."
        )


def check_before_loading(
    args: HPTConfig,
    algorithm: Algorithm,
    model: Any,
    dataset: Dataset | IterableDataset | None,
    gate_is_off: bool,
    has_environment: bool,
) -> None:
    """Reject what can be rejected before the model is loaded.

    Args:
        args: of the run.
        algorithm: the preset that `args` names, or the user's own.
        model: a name, or a model.
        dataset: the training data; None where an environment owns it.
        gate_is_off: whether every prompt is trained on rollouts only.
        has_environment: whether there is an environment.
    """
    check_algorithm(args, algorithm)
    check_served_model(args, model)
    if not gate_is_off or args.max_tokens_per_forward is not None:
        check_loss_type(args.loss_type)
    check_dataset(
        dataset,
        args,
        has_environment,
        needs_demonstrations=not gate_is_off or args.sft_warmup_steps > 0,
        supports_images=args.max_tokens_per_forward is None,
    )
    if args.sft_warmup_steps and (has_environment or not algorithm.rollouts):
        raise ValueError(
            f"sft_warmup_steps={args.sft_warmup_steps} trains on demonstrations before anything is generated: it "
            "needs an algorithm with rollouts, and prompts from a train_dataset instead of an environment. Set it to 0."
        )
    if has_environment and not algorithm.rollouts:
        raise ValueError(
            "This algorithm generates nothing, so an environment has nothing to score. Remove environment_factory, or "
            "use an algorithm with rollouts."
        )
    if has_environment and algorithm.joint_group:
        raise ValueError("An environment scores only its own rollouts: it cannot score a demonstration in a group.")


def check_algorithm(args: HPTConfig, algorithm: Algorithm) -> None:
    """Reject options that the algorithm would ignore, and an algorithm that cannot be trained."""
    by_trl = algorithm.trl_rollouts and not algorithm.joint_group
    if algorithm.rollouts and not by_trl and args.loss_type not in ("grpo", "dr_grpo"):
        raise ValueError(f"This algorithm averages rows as loss_type 'grpo' or 'dr_grpo' does: got {args.loss_type!r}.")
    neutral: dict[str, Any] = {}
    if not algorithm.trl_rollouts:
        neutral |= _TRL_ONLY
    if not by_trl:
        neutral["multi_objective_aggregation"] = "sum_then_normalize"
    if not algorithm.rollouts:
        neutral["use_vllm"] = False
    ignored = {name: getattr(args, name) for name, value in neutral.items() if getattr(args, name) != value}
    if not by_trl and args.scale_rewards == "batch":
        ignored["scale_rewards"] = "batch"
    if ignored:
        raise ValueError(
            f"This algorithm would ignore {ignored}: its advantages or its loss on rollouts are not TRL's. Leave "
            "them at their defaults, set them in an Estimator of your own, or use algorithm='hpt'."
        )
    needs_rollouts = any(
        estimator.needs_groups or estimator.advantage is given for estimator in algorithm.demonstrations
    )
    if not algorithm.rollouts and needs_rollouts:
        raise ValueError("An algorithm without rollouts has no groups, from which its demonstrations need advantages.")
    if sum(estimator.needs_groups for estimator in algorithm.rollouts) > 1:
        raise ValueError("At most one estimator on rollouts may take its advantages over groups.")


def check_served_model(args: HPTConfig, model: Any) -> None:
    """Reject a policy that differs from the model vLLM generates with: colocated, vLLM ignores `model_init_kwargs`."""
    options = dict(cast(Mapping, args.model_init_kwargs or {}))
    own = {name: value for name, value in options.items() if name not in _LOADING}
    if not (own and args.use_vllm and args.vllm_mode == "colocate" and isinstance(model, str)):
        return
    source = {
        "revision": options.get("revision") or "main",
        "trust_remote_code": options.get("trust_remote_code", args.trust_remote_code),
    }
    served = AutoConfig.from_pretrained(model, **source)
    trained = AutoConfig.from_pretrained(model, **source, **own)
    changed = [name for name in own if getattr(served, name, None) != getattr(trained, name, None)]
    if changed:
        raise ValueError(
            f"vLLM loads {model!r} by its config.json, without model_init_kwargs: it would generate with another "
            f"{' and '.join(changed)} than the policy has. Write them into the config.json of a copy of the model, "
            "and use that folder."
        )


def check_dataset(
    dataset: Dataset | IterableDataset | None,
    args: HPTConfig,
    has_environment: bool,
    needs_demonstrations: bool,
    supports_images: bool,
) -> None:
    """Reject data without rows, prompts or demonstrations, too little for one generation, or with unsupported images.

    Only the columns of a stream can be checked, and only if it knows them before it is read.
    """
    if dataset is None:
        _check_environment_data(has_environment, needs_demonstrations)
        return
    columns = dataset.column_names
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError("The training data is empty: 0 rows. Check dataset_name and dataset_train_split.")
    if columns is not None:
        _check_columns(columns, has_environment, supports_images)
    if needs_demonstrations and columns is not None:
        check_demonstrations(dataset, columns)
    prompts = (args.generation_batch_size or 0) // (args.num_generations or 1)
    if isinstance(dataset, Dataset) and len(dataset) < prompts:
        raise ValueError(
            f"One generation needs {prompts} prompts (generation_batch_size {args.generation_batch_size}, "
            f"num_generations {args.num_generations}), but the training data has {len(dataset)} rows: no step is "
            "possible. Lower per_device_train_batch_size or gradient_accumulation_steps, or provide more data."
        )


def _check_environment_data(has_environment: bool, needs_demonstrations: bool) -> None:
    if has_environment and needs_demonstrations:
        raise ValueError(
            "There is no train_dataset, so no prompt has a demonstration, and the gate could never choose one: an "
            "environment supplies prompts and rewards only. Pass a train_dataset with a 'demonstration' column, or set "
            "gate='off' for plain GRPO."
        )


def _check_columns(columns: list[str], has_environment: bool, supports_images: bool) -> None:
    if not has_environment and "prompt" not in columns:
        raise ValueError(
            f"The training data has no 'prompt' column, only {columns}. Rename the one that holds the question, or let "
            "`hpt-trl prepare` make the columns."
        )
    images = {"image", "images"} & set(columns)
    if images and not supports_images:
        raise ValueError(
            f"Prompts with images (columns {sorted(images)}) do not support max_tokens_per_forward: a micro-batch with "
            "images is not split. Unset it, and lower per_device_train_batch_size if memory is short."
        )


def check_tokenizer(processing_class: Any, config: Any, dataset: Dataset | IterableDataset | None) -> None:
    """Reject a tokenizer or processor that cannot end an answer or render the conversations of the data.

    Args:
        processing_class: the tokenizer or processor.
        config: configuration of the model.
        dataset: the training data, if there is any.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "The tokenizer has no EOS token, which ends answers and demonstrations. Set tokenizer.eos_token."
        )
    vocabulary = getattr(config.get_text_config(), "vocab_size", None)
    for name in ("eos_token", "pad_token"):
        token_id = getattr(tokenizer, f"{name}_id")
        if vocabulary and token_id is not None and token_id >= vocabulary:
            raise ValueError(
                f"The tokenizer's {name} {getattr(tokenizer, name)!r} has the id {token_id}, and the model has a "
                f"vocabulary of {vocabulary} tokens. The tokenizer is another model's, or its folder lacks "
                "tokenizer_config.json. Use the tokenizer that the model was trained with."
            )
    if not isinstance(dataset, Dataset) or "prompt" not in dataset.column_names:
        return
    if not isinstance(dataset[0]["prompt"], str) and not processing_class.chat_template:
        raise ValueError(
            "The prompts are conversations, but the tokenizer of the model has no chat template to render them. Use "
            "the instruct version of the model, set tokenizer.chat_template, or provide prompts as strings "
            "(`hpt-trl prepare --prompt_format text`)."
        )


def context_length(config: Any) -> int | None:
    """Maximum number of tokens of a model, with its rope scaling; None: no limit is known."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    return max(positions, int(rope.get("original_max_position_embeddings", positions) * rope.get("factor", 1.0)))


def room_of(model: Any) -> int | None:
    """Maximum number of tokens that a model can be given, without the virtual ones of its adapter; None: no limit."""
    context = context_length(model.config.get_text_config())
    virtual = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
    return None if context is None else context - virtual


def too_long(lengths: Sequence[int], context: int | None) -> str | None:
    """What is wrong with prompts that leave no room for an answer, if there are any.

    Args:
        lengths: tokens of each prompt.
        context: maximum number of tokens of the model; None: no limit.
    """
    if context is None or max(lengths, default=0) < context:
        return None
    return (
        f"a prompt of {max(lengths)} tokens leaves no room for an answer: the model's context is {context} tokens "
        "(max_position_embeddings). Remove or shorten such prompts, or use a model with a longer context."
    )


def check_prompts(
    dataset: Dataset, lengths_of: Callable[[list], list[int]], context: int | None, answer: int
) -> str | None:
    """Reject data with prompts that leave no room for an answer.

    Args:
        dataset: its column `prompt` holds strings or conversations.
        lengths_of: returns the number of tokens of each of some prompts.
        context: maximum number of tokens of the model; None: no limit.
        answer: maximum number of tokens of an answer.

    Returns:
        A warning if the longest answer does not fit behind the longest prompt, else None.

    Raises:
        ValueError: if prompts cannot be tokenized or leave no room.
    """
    longest_bytes = longest_prompt(dataset) if len(dataset) else None
    if longest_bytes is not None:
        # A token has at least one byte. Reading a million rows takes a minute.
        template = lengths_of(dataset["prompt"][:1])[0]
        if context is None or longest_bytes + template + answer < context:
            return None
    prompts = dataset["prompt"][:]
    faults = [fault for prompt in prompts if (fault := prompt_fault(prompt))]
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(prompts)} prompts of the training data cannot be tokenized; the first of them "
            f"{faults[0]}. A prompt is a text or a list of messages: convert or remove the other rows."
        )
    if context is None or len(prompts) == 0:
        return None
    # A token has at least one byte: few prompts need to be tokenized, if any.
    template = lengths_of([prompts[0]])[0]
    bytes_B = [len(str(prompt).encode(errors="replace")) + template for prompt in prompts]
    longest = sorted(range(len(prompts)), key=lambda row: -bytes_B[row])
    lengths: list[int] = []
    for start in range(0, len(longest), 256):
        rows = [row for row in longest[start : start + 256] if bytes_B[row] + (answer if start == 0 else 0) >= context]
        lengths += lengths_of([prompts[row] for row in rows]) if rows else []
    problem = too_long(lengths, context)
    if problem is not None:
        count = sum(length >= context for length in lengths)
        raise ValueError(f"In the training data, {problem} There are {count} of them in {len(prompts)} rows.")
    if max(lengths, default=0) + answer <= context:
        return None
    return (
        f"A prompt of the training data has {max(lengths)} tokens and max_completion_length is {answer}: together more "
        f"than the model's context of {context} tokens (max_position_embeddings), past which it writes nonsense or "
        "fails. Lower max_completion_length, or remove the longest prompts."
    )


def check_launch(args: DurableGRPOConfig, accelerator: Accelerator) -> None:
    """Reject options that do not work with the way this run was launched."""
    if accelerator.num_processes > 1 and args.reward_timeout is not None and args.reward_timeout >= args.ddp_timeout:
        raise ValueError(
            f"reward_timeout ({args.reward_timeout} s) must be below ddp_timeout ({args.ddp_timeout} s), after which "
            "the other processes stop waiting for the one whose reward function hangs."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED and args.skip_grad_norm_above is not None:
        raise ValueError(
            "skip_grad_norm_above does not work under DeepSpeed, whose engine steps the optimizer inside backward. "
            "Unset it; DeepSpeed's gradient_clipping bounds the norm."
        )


def check_support(args: HPTConfig, algorithm: Algorithm, has_router_loss: bool, reads_images: bool) -> None:
    """Reject models that the algorithm or an option does not support."""
    if has_router_loss and not algorithm.trl_rollouts:
        raise ValueError("This algorithm would ignore the router's auxiliary loss: set router_aux_loss_coef to 0.")
    if has_router_loss and args.max_tokens_per_forward is not None:
        raise ValueError(
            "The router's auxiliary loss needs complete micro-batches, which max_tokens_per_forward would split. "
            "Unset it, or set router_aux_loss_coef to 0."
        )
    if reads_images and args.max_tokens_per_forward is not None:
        raise ValueError(
            "A model with image inputs needs micro-batches as TRL arranges them, which max_tokens_per_forward would "
            "split. Unset it, and lower per_device_train_batch_size."
        )


def gate_reward_index(names: list[str], wanted: str | None, is_needed: bool) -> int | None:
    """Column of the reward function that the gate listens to; None if it is not needed.

    Args:
        names: reward functions.
        wanted: `gate_reward`; None: the only one, or `accuracy_reward` (ours or TRL's).
        is_needed: whether the algorithm depends on solve rates.

    Raises:
        ValueError: if it is needed and not determined.
    """
    if wanted is None and len(names) == 1:
        return 0
    if wanted is None and names.count("accuracy_reward") == 1:
        wanted = "accuracy_reward"
    if wanted is None and not is_needed:
        return None
    if wanted not in names:
        raise ValueError(
            f"gate_reward must name the reward function that decides whether a rollout solved its prompt, one of "
            f"{names}; got {wanted!r}. The gate listens to one reward function, not to a sum with a format bonus."
        )
    return names.index(wanted)
