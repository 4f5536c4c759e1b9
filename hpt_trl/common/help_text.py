"""Help of a command: `--config` first, then the options by subject; short by default, complete with `--help-all`."""

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence

_HPT, _FAULTS, _DATA, _MODEL = "HPT", "Faults", "Data and rewards", "Model and LoRA"
_GENERATION, _TRL, _TRANSFORMERS = "Generation and vLLM", "TRL's GRPO", "transformers' training"
_INDENT = 34
_CONFIG = (
    "YAML file of options, or a config of the package as hpt_trl:NAME; flags override it. `hpt-trl configs` "
    "lists those of the package."
)

# In the short help, of the subjects with many options.
_COMMON = {
    _MODEL: "model_name_or_path model_revision dtype attn_implementation use_peft lora_r lora_alpha lora_dropout "
    "lora_target_modules load_in_4bit",
    _GENERATION: "num_generations max_completion_length temperature top_p top_k use_vllm vllm_mode "
    "vllm_gpu_memory_utilization vllm_max_model_length vllm_server_base_url",
    _TRL: "loss_type scale_rewards beta epsilon num_iterations steps_per_generation reward_weights log_completions "
    "shuffle_dataset",
    _TRANSFORMERS: "output_dir resume_from_checkpoint max_steps num_train_epochs per_device_train_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps optim max_grad_norm "
    "gradient_checkpointing bf16 use_cpu seed logging_steps eval_strategy save_steps save_total_limit report_to "
    "push_to_hub hub_model_id",
}
_OF_GENERATION = (
    "cache_implementation",
    "generation_",
    "max_completion_length",
    "min_p",
    "num_generations",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "use_transformers_",
    "use_vllm",
    "vllm_",
)


def help_text(prog: str, dataclass_types: Iterable[type], actions: Sequence[argparse.Action], is_complete: bool) -> str:
    """The help of a command.

    Args:
        prog: the command.
        dataclass_types: what its options fill.
        actions: its options, as the parser has them.
        is_complete: whether to show every option with its complete text, or the common ones with their first sentence.
    """
    subjects = {name: subject for each in dataclass_types for name, subject in _subjects(each).items()}
    shown: dict[str, list[argparse.Action]] = {}
    for action in actions:
        # `--no_x` repeats `--x`.
        if action.dest in subjects and not action.option_strings[0].startswith("--no_"):
            shown.setdefault(subjects[action.dest], []).append(action)
    lines = [f"usage: {prog} [--config FILE] [--OPTION VALUE ...]", ""]
    lines += _entry("--config FILE", _CONFIG)
    lines += _entry("--help-all", "Show every option with its complete description.")
    left_out = 0
    for subject in (_HPT, _FAULTS, _DATA, _MODEL, _GENERATION, _TRL, _TRANSFORMERS):
        group = shown.get(subject, [])
        common = _COMMON.get(subject, "").split()
        if common and not is_complete:
            left_out += len(group)
            group = [action for name in common for action in group if action.dest == name]
            left_out -= len(group)
        if group:
            lines += ["", f"{subject}:" if len(shown) > 1 else "options:"]
            lines += [line for action in group for line in _entry(_usage(action), _description(action, is_complete))]
    if left_out:
        lines += ["", f"{left_out} more options of TRL and transformers: {prog} --help-all"]
    return "\n".join(lines) + "\n"


def _subjects(dataclass_type: type) -> dict[str, str]:
    """The subject of every field, by the class that first declares it."""
    subjects: dict[str, str] = {}
    for each in reversed(dataclass_type.__mro__):
        for name in vars(each).get("__annotations__", {}):
            subjects.setdefault(name, _subject(each, name))
    return subjects


def _subject(owner: type, name: str) -> str:
    if owner.__name__.endswith("ScriptArguments"):
        return _DATA
    if owner.__module__.startswith("hpt_trl."):
        return _FAULTS if owner.__module__.startswith("hpt_trl.durability.") else _HPT
    if owner.__name__ == "ModelConfig":
        return _MODEL
    if name.startswith(_OF_GENERATION):
        return _GENERATION
    return _TRL if owner.__module__.startswith("trl.") else _TRANSFORMERS


def _usage(action: argparse.Action) -> str:
    value = "{true,false}" if action.nargs == "?" else "VALUE"
    return f"{action.option_strings[0]} {value}{' ...' if action.nargs in ('+', '*') else ''}"


def _description(action: argparse.Action, is_complete: bool) -> str:
    text = " ".join((action.help or "").replace("%%", "%").split())
    if text and not is_complete:
        text = re.split(r"(?<!\.)\. (?=[A-Z`])", text)[0].rstrip(".") + "."
    if action.choices is not None:
        text += f" One of {', '.join(map(str, action.choices))}."
    return f"{text} {_default(action)}".strip()


def _default(action: argparse.Action) -> str:
    if action.required:
        return "(required)"
    value = getattr(action.default, "value", action.default)  # of an enumeration
    if value is None or value == []:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"(default: {text})" if len(text) < 60 else ""


def _entry(option: str, text: str) -> Iterator[str]:
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    head = f"  {option}"
    wrapped = textwrap.wrap(text, width - _INDENT, break_on_hyphens=False) or [""]
    if len(head) < _INDENT - 1:
        yield f"{head:<{_INDENT}}{wrapped.pop(0)}".rstrip()
    else:
        yield head
    yield from (f"{'':<{_INDENT}}{line}" for line in wrapped if line)
