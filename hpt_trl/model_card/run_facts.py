"""The facts of a run for its model card: collected from the trainer, and saved as JSON next to the model."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from datasets import Dataset
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from trl.trainer.utils import get_config_model_id, get_trackio_space_url

from hpt_trl.common.files import write_atomically
from hpt_trl.common.masking import mask_tokens, masked
from hpt_trl.common.versions import versions_of
from hpt_trl.config import HPTConfig
from hpt_trl.miniature import MODEL_PATH

FILE_NAME = "hpt_run.json"
_MAX_EXAMPLE = 600  # characters


@dataclass(frozen=True)
class Data:
    """The training data of a run.

    Args:
        name: name to show in the card.
        hub_id: id on the Hub, or "".
        config: configuration of the dataset on the Hub, or "".
        split: split, or "".
        note: how the data was prepared, or "".
    """

    name: str = ""
    hub_id: str = ""
    config: str = ""
    split: str = ""
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """What only the command line knows about a run.

    Args:
        data: the training data.
        reward_functions: names of the reward functions, as in the configuration.
        command: command that started the run, without secrets.
        config: content of the configuration file, without secrets.
    """

    data: Data = field(default_factory=Data)
    reward_functions: Sequence[str] = ()
    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """What the card needs and no other file in the folder contains. Texts are "" if unknown.

    Args:
        name: name of the model.
        repository: id of the model on the Hub.
        base: name of the base model.
        base_hub_id: id on the Hub of the base model or, for a local base, of the model it was derived from.
        license: license that the card of a local base model names.
        form: form of the saved weights: "full", "adapter" or "merged".
        is_chat: whether prompts are conversations.
        longest_answer: maximum completion length in tokens.
        data: the training data.
        rows: number of training rows; None if unknown.
        algorithm: name of the algorithm.
        method: sentences that describe what each prompt was trained on.
        has_demonstrations: whether the run used demonstrations.
        settings: options to show, by title.
        versions: versions of packages, by name.
        step: number of completed optimizer steps.
        max_steps: number of planned optimizer steps.
        held_out: step and metrics of each evaluation during training.
        command: command that started the run, without secrets.
        config: content of the configuration file, without secrets.
        trackers: URLs of charts, by tracker.
        tags: tags for the metadata.
        paper: title, id and citation of the paper.
        folder: the run's folder, as `output_dir` names it; of an absolute path, the last part.
        example: a prompt of the training data, for the example of how to use the model; "" if none is short.
    """

    name: str
    repository: str
    base: str
    base_hub_id: str
    license: str
    form: str
    is_chat: bool
    longest_answer: int
    data: Data
    rows: int | None
    algorithm: str
    method: str
    has_demonstrations: bool
    settings: dict[str, str]
    versions: dict[str, str]
    step: int
    max_steps: int
    held_out: list[dict[str, float]]
    command: str
    config: dict[str, Any]
    trackers: dict[str, str]
    tags: list[str]
    paper: dict[str, str]
    folder: str = ""
    example: Any = ""

    def write(self, folder: str | Path) -> None:
        """Save the facts in a folder."""
        write_atomically(Path(folder) / FILE_NAME, mask_tokens(json.dumps(masked(asdict(self)), indent=1, default=str)))

    def without_secrets(self) -> "RunFacts":
        """The same facts with secrets masked in all texts."""
        return _from_dict(masked(asdict(self)))


def read_facts(folder: str | Path) -> RunFacts:
    """Read what `RunFacts.write` saved.

    Raises:
        FileNotFoundError: if the folder contains no such file.
        ValueError: if another version wrote the file.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} contains no {FILE_NAME}. Pass the output_dir of an HPTTrainer run that has saved a model."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _from_dict(content)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{str(path)!r} was not written by this version of hpt_trl: {error}.") from error


def _from_dict(content: dict[str, Any]) -> RunFacts:
    return RunFacts(**content | {"data": Data(**content["data"])})


def hub_id(name: str) -> str:
    """Return the name if it can be an id on the Hub, else ""."""
    if not name or name.startswith((".", "/", "~")) or Path(name).exists():
        return ""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return ""
    return name


def base_of(name: str) -> dict[str, str]:
    """Description of the base model for the card: `base`, `base_hub_id` and `license`.

    A local model is named after its folder; the base model and the license come from its own card.
    """
    if name == MODEL_PATH:
        return {"base": "the bundled model of hpt_trl", "base_hub_id": "", "license": ""}
    if base_id := hub_id(name):
        return {"base": base_id, "base_hub_id": base_id, "license": ""}
    card = Path(name) / "README.md"
    data = ModelCard.load(card, ignore_metadata_errors=True).data if name and card.is_file() else None
    derived_from = data.base_model if data else None
    return {
        "base": Path(name).name,
        "base_hub_id": hub_id(derived_from) if isinstance(derived_from, str) else "",
        "license": data.license if data and isinstance(data.license, str) else "",
    }


def settings_of(trainer: Any) -> dict[str, str]:
    """The most important options of a run as texts, by title."""
    args: HPTConfig = trainer.args
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * trainer.accelerator.num_processes
    processes = str(trainer.accelerator.num_processes)
    if processes != "1":
        processes += f", {trainer.accelerator.distributed_type.value}"
    gate = f"{args.gate}, threshold {args.gate_threshold:g}" if args.gate == "switch" else args.gate
    return {
        "algorithm": args.algorithm,
        **({"gate": gate} if args.algorithm == "hpt" else {}),
        "demonstration weight": f"{args.sft_weight:g} (normalized by {args.sft_normalization})",
        "reward functions": ", ".join(trainer.origin.reward_functions or trainer.reward_func_names),
        "prompts per step": f"{rows / trainer.num_generations:g}",
        "rollouts per prompt": str(trainer.num_generations),
        "sampling": f"temperature {args.temperature:g}, top-p {args.top_p:g}",
        "maximum completion length": f"{args.max_completion_length} tokens",
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "policy loss": f"{args.loss_type}, scale_rewards {args.scale_rewards}, KL weight {args.beta:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "processes": processes,
        "seed": str(args.seed),
        **({"adapter": trainer.adapter} if trainer.adapter else {}),
    }


def describe_adapter(model: Any) -> str:
    """Type, size and target modules of a model's adapter; "" if it has none."""
    if not is_peft_model(model):
        return ""
    config = model.active_peft_config
    parts = [config.peft_type.value]
    for title, name in (("rank", "r"), ("alpha", "lora_alpha"), ("virtual tokens", "num_virtual_tokens")):
        value = getattr(config, name, None)
        if value is not None:
            parts.append(f"{title} {value}")
    targets = getattr(config, "target_modules", None) or []
    if targets:
        parts.append(targets if isinstance(targets, str) else f"on {', '.join(sorted(targets))}")
    return ", ".join(parts)


def packages_of(trainer: Any, form: str) -> list[str]:
    """Names of the packages that a run used."""
    names = ["trl", "transformers", "torch", "accelerate", "datasets", "tokenizers"]
    if form != "full":
        names.append("peft")
    if trainer.args.use_vllm:
        names.append("vllm")
    if trainer.is_deepspeed_enabled:
        names.append("deepspeed")
    return names


def collect(trainer: Any, name: str, data_name: str, tags: set[str], method: str, paper: dict[str, str]) -> RunFacts:
    """Collect the current facts of a run.

    Args:
        trainer: the HPTTrainer.
        name: name of the model.
        data_name: id of the dataset on the Hub; "" takes the data from the trainer's origin.
        tags: tags for the metadata.
        method: text from `describe_method`.
        paper: title, id and citation of the paper.
    """
    form = "adapter" if is_peft_model(trainer.model) else "merged" if trainer.adapter else "full"
    origin: Origin = trainer.origin
    data = Data(data_name, hub_id(data_name)) if data_name else origin.data
    rows = trainer.train_dataset
    evaluations = [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)]
    tracker_urls = {"Weights & Biases": _wandb_url(), "trackio": get_trackio_space_url()}
    return RunFacts(
        **base_of(get_config_model_id(trainer.model.config)),
        name=name,
        repository=trainer.hub_model_id or trainer.args.hub_model_id or "",
        form=form,
        is_chat=_is_chat(trainer),
        longest_answer=trainer.args.max_completion_length or 256,
        data=data,
        rows=len(rows) if isinstance(rows, Dataset) else None,
        algorithm=trainer.args.algorithm,
        method=method,
        has_demonstrations=trainer.uses_demonstrations,
        settings=settings_of(trainer),
        versions=versions_of(packages_of(trainer, form)),
        step=trainer.state.global_step,
        max_steps=trainer.state.max_steps,
        held_out=[{key: value for key, value in entry.items() if value is not None} for entry in evaluations],
        command=origin.command,
        config=dict(origin.config),
        trackers={tracker: url for tracker, url in tracker_urls.items() if url},
        tags=sorted(tags),
        paper=paper,
        folder=_folder(str(trainer.args.output_dir)),
        example=_example(rows),
    )


def _folder(path: str) -> str:
    return Path(path).name if Path(path).is_absolute() else Path(path).as_posix()


def _example(rows: Any) -> Any:
    """The first prompt of the training data, if it is text and short."""
    if not isinstance(rows, Dataset) or "prompt" not in rows.column_names or len(rows) == 0:
        return ""
    prompt = rows[0]["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    is_text = isinstance(messages, list) and all(isinstance(each.get("content"), str) for each in messages)
    if not is_text or sum(len(each["content"]) for each in messages) > _MAX_EXAMPLE:
        return ""
    return (
        prompt if isinstance(prompt, str) else [{name: each[name] for name in ("role", "content")} for each in prompt]
    )


def _is_chat(trainer: Any) -> bool:
    rows = trainer.train_dataset
    if isinstance(rows, Dataset) and "prompt" in rows.column_names:
        return not isinstance(rows[0]["prompt"], str)
    # For a streamed dataset the tokenizer decides, because reading a row would start a download.
    return getattr(trainer.processing_class, "chat_template", None) is not None


def _wandb_url() -> str | None:
    # A run that reports to W&B has already imported it.
    run = getattr(sys.modules.get("wandb"), "run", None)
    return getattr(run, "url", None)
