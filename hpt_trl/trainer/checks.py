"""What HPTTrainer refuses before a run starts, instead of failing late or ignoring it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset, IterableDataset
from transformers import AutoConfig

from hpt_trl.algorithm.estimator import ALGORITHMS, Algorithm, given
from hpt_trl.algorithm.gate import Gate
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.demonstrations import is_missing

# What TRL's loss on rollouts does beyond the estimator's, and the value at which it does nothing.
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

# Of model_init_kwargs, what says how to load a model and not which.
_LOADING = {
    "attn_implementation", "device_map", "dtype", "quantization_config", "revision", "torch_dtype",
    "trust_remote_code", "use_cache",
}  # fmt: skip


def check_arguments(args: HPTConfig, gate: Gate | None, algorithm: Algorithm | None) -> None:
    """Refuse another trainer's config, and a gate or an algorithm that is given twice."""
    if not isinstance(args, HPTConfig):
        raise TypeError(f"HPTTrainer takes an HPTConfig, got {type(args).__name__}: rename it, all its options hold.")
    has_gate_options = args.gate != "switch" or args.gate_threshold or args.gate_off_policy_threshold is not None
    if gate is not None and has_gate_options:
        raise ValueError(
            f"HPTTrainer got a gate of its own and args that name another (gate={args.gate!r}, gate_threshold="
            f"{args.gate_threshold}). Leave the gate options of HPTConfig at their defaults."
        )
    if algorithm is not None and args.algorithm != "hpt":
        raise ValueError(
            f"HPTTrainer got an algorithm of its own and args that name {args.algorithm!r}. Leave HPTConfig's "
            "algorithm at its default."
        )
    preset = algorithm or ALGORITHMS[args.algorithm]
    if preset.joint_group and has_gate_options:
        raise ValueError(
            "In an algorithm with joint groups every demonstration joins its group, whatever the gate options say: got "
            f"gate={args.gate!r}, gate_threshold={args.gate_threshold}. Leave them at their defaults."
        )
    if (gate is not None or args.gate == "off") and not (preset.rollouts and preset.demonstrations):
        raise ValueError("A gate chooses between rollouts and demonstrations, and this algorithm has but one of them.")


def check_algorithm(args: HPTConfig, algorithm: Algorithm) -> None:
    """Refuse options that the algorithm would ignore, and an algorithm that cannot be trained by."""
    by_trl = algorithm.trl_rollouts and not algorithm.joint_group
    if algorithm.rollouts and not by_trl and args.loss_type not in ("grpo", "dr_grpo"):
        raise ValueError(
            f"This algorithm averages rows as loss_type 'grpo' or 'dr_grpo' does, and no other: got {args.loss_type!r}."
        )
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
            f"This algorithm would ignore {ignored}: it takes neither TRL's advantages nor its loss on rollouts. Leave "
            "these at their defaults, set them in an Estimator of your own, or take algorithm='hpt'."
        )
    needs_rollouts = any(each.needs_groups or each.advantage is given for each in algorithm.demonstrations)
    if not algorithm.rollouts and needs_rollouts:
        raise ValueError("An algorithm without rollouts has no groups to take its demonstrations' advantages from.")
    if sum(each.needs_groups for each in algorithm.rollouts) > 1:
        raise ValueError("Only one of an algorithm's estimators on rollouts may take its advantages over groups.")


def check_served_model(args: HPTConfig, model: Any) -> None:
    """Refuse to train another model than vLLM generates with, which if colocated sees no `model_init_kwargs`."""
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
            f"vLLM loads {model!r} as its config.json says, without model_init_kwargs: it would generate with another "
            f"{' and '.join(changed)} than is trained. Write them into the config.json of a copy of the model, and "
            "name that folder."
        )


def check_dataset(
    dataset: Dataset | IterableDataset,
    args: HPTConfig,
    needs_prompt: bool,
    needs_demonstrations: bool,
    sees_pictures: bool,
) -> None:
    """Refuse data without rows, prompts or demonstrations, too little for one generation, or with unseen pictures.

    Of a stream only the columns can be checked, and those only if it knows them before it is read.
    """
    columns = dataset.column_names
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError("The training data is empty: 0 rows. Check dataset_name and dataset_train_split.")
    if needs_prompt and columns is not None and "prompt" not in columns:
        raise ValueError(
            f"The training data has no 'prompt' column, only {columns}. Rename the one that holds the question, or let "
            "`hpt-trl prepare` make the columns."
        )
    if needs_demonstrations and columns is not None:
        _check_demonstrations(dataset, columns)
    pictures = {"image", "images"} & set(columns or [])
    if pictures and not sees_pictures:
        raise ValueError(
            f"Prompts with pictures are not supported here (columns {sorted(pictures)}): only TRL's own forward sees "
            "them, of a whole micro-batch. Remove the columns, or set gate='off' and no max_tokens_per_forward."
        )
    prompts = (args.generation_batch_size or 0) // (args.num_generations or 1)
    if isinstance(dataset, Dataset) and len(dataset) < prompts:
        raise ValueError(
            f"One generation takes {prompts} prompts (generation_batch_size {args.generation_batch_size}, "
            f"num_generations {args.num_generations}), but the training data has {len(dataset)} rows: no step could be "
            "made. Lower per_device_train_batch_size or gradient_accumulation_steps, or give more data."
        )


def _check_demonstrations(dataset: Dataset | IterableDataset, columns: list[str]) -> None:
    has_none = "demonstration" not in columns
    if has_none or (isinstance(dataset, Dataset) and all(map(is_missing, dataset["demonstration"]))):
        raise ValueError(
            f"No row of the training data has a demonstration (columns: {columns}): the gate would have nothing to "
            "turn to. Add a 'demonstration' column (`hpt-trl prepare` makes one), or set gate='off' for plain GRPO."
        )


def check_tokenizer(tokenizer: Any, dataset: Dataset | IterableDataset | None) -> None:
    """Refuse a tokenizer that cannot end a demonstration or render the data's conversations."""
    if tokenizer.eos_token_id is None:
        raise ValueError("The tokenizer has no EOS token, with which demonstrations must end. Set tokenizer.eos_token.")
    if not isinstance(dataset, Dataset) or "prompt" not in dataset.column_names:
        return
    if not isinstance(dataset[0]["prompt"], str) and not tokenizer.chat_template:
        raise ValueError(
            "The prompts are conversations, but the model's tokenizer has no chat template to render them. Take the "
            "instruct version of the model, set tokenizer.chat_template, or give prompts as texts."
        )


def keeps_one_backward(accelerator: Accelerator, args: HPTConfig) -> bool:
    """Whether a micro-batch must be backpropagated at once.

    Without accumulation DeepSpeed's ZeRO-1 and 2 keep, of several backwards with an offloaded optimizer, only the last.
    """
    plugin = accelerator.state.deepspeed_plugin
    return plugin is not None and args.gradient_accumulation_steps == 1 and plugin.hf_ds_config.is_offload()


def context_length(config: Any) -> int | None:
    """Tokens that a model can attend to, with its rope scaling; None: no limit is known."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    return max(positions, int(rope.get("original_max_position_embeddings", positions) * rope.get("factor", 1.0)))


def too_long(lengths: Sequence[int], context: int | None) -> str | None:
    """What is wrong with prompts that leave no room for an answer, if any do.

    Args:
        lengths: tokens of each prompt.
        context: tokens the model can attend to; None: no limit.
    """
    if context is None or max(lengths, default=0) < context:
        return None
    return (
        f"a prompt of {max(lengths)} tokens leaves no room for an answer: the model's context is {context} tokens "
        "(max_position_embeddings). Drop or shorten such prompts, or take a model with a longer context."
    )


def check_prompts(prompts: Sequence[Any], lengths_of: Callable[[list], list[int]], context: int | None) -> None:
    """Refuse data with prompts that leave no room for an answer.

    Args:
        prompts: texts or conversations.
        lengths_of: tokens of each of some prompts.
        context: tokens the model can attend to; None: no limit.
    """
    if context is None or len(prompts) == 0:
        return
    # A token is at least a byte: few prompts need to be tokenized, if any.
    template = lengths_of([prompts[0]])[0]
    candidates = [prompt for prompt in prompts if len(str(prompt).encode(errors="replace")) + template >= context]
    lengths = [
        length for start in range(0, len(candidates), 256) for length in lengths_of(candidates[start : start + 256])
    ]
    problem = too_long(lengths, context)
    if problem is not None:
        count = sum(length >= context for length in lengths)
        raise ValueError(f"In the training data, {problem} There are {count} of them in {len(prompts)} rows.")


def check_launch(args: HPTConfig, accelerator: Accelerator) -> None:
    """Refuse what the way this run was launched cannot do."""
    if accelerator.num_processes > 1 and args.reward_timeout is not None and args.reward_timeout >= args.ddp_timeout:
        raise ValueError(
            f"reward_timeout ({args.reward_timeout} s) must be below ddp_timeout ({args.ddp_timeout} s), after which "
            "the other processes give up waiting for the one whose reward function hangs."
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED and args.skip_grad_norm_above is not None:
        raise ValueError(
            "skip_grad_norm_above does not work under DeepSpeed, whose engine steps the optimizer inside backward. "
            "Unset it; DeepSpeed's gradient_clipping bounds the norm."
        )
    if args.max_tokens_per_forward is not None and keeps_one_backward(accelerator, args):
        raise ValueError(
            "max_tokens_per_forward backpropagates several times a micro-batch, of which DeepSpeed keeps the last only "
            "under offload with gradient_accumulation_steps=1. Set gradient_accumulation_steps to 2 or more."
        )


def check_support(
    args: HPTConfig, algorithm: Algorithm, has_router_loss: bool, sees_pictures: bool, has_environment: bool
) -> None:
    """Refuse models and environments that the algorithm cannot do justice to."""
    if has_router_loss and not algorithm.trl_rollouts:
        raise ValueError("This algorithm would ignore the router's auxiliary loss: set router_aux_loss_coef to 0.")
    if has_router_loss and args.max_tokens_per_forward is not None:
        raise ValueError(
            "The router's auxiliary loss acts on a micro-batch as a whole, which max_tokens_per_forward would cut. "
            "Unset it, or set router_aux_loss_coef to 0."
        )
    if sees_pictures and args.max_tokens_per_forward is not None:
        raise ValueError(
            "A model that sees pictures computes micro-batches as TRL lays them out, which max_tokens_per_forward "
            "would cut. Unset it, and lower per_device_train_batch_size."
        )
    if has_environment and algorithm.joint_group:
        raise ValueError("An environment scores its own rollouts only: it cannot score a demonstration in a group.")


def gate_reward_index(names: list[str], wanted: str | None, is_needed: bool) -> int | None:
    """Column of the one reward function that says whether a prompt was solved; None if nobody needs to know.

    Of several, `accuracy_reward` (ours or TRL's) is the one, unless another is wanted.
    """
    if wanted is None and len(names) == 1:
        return 0
    if wanted is None and names.count("accuracy_reward") == 1:
        wanted = "accuracy_reward"
    if wanted is None and not is_needed:
        return None
    if wanted not in names:
        raise ValueError(
            f"gate_reward must name the reward function that says whether a rollout solved its prompt, one of {names}; "
            f"got {wanted!r}. The gate listens to one signal, not to a sum with a format bonus."
        )
    return names.index(wanted)
