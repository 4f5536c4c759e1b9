"""What a run was: the facts that a model card tells, gathered from its trainer and kept as JSON beside the model."""

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
from hpt_trl.common.versions import versions_of
from hpt_trl.config import HPTConfig
from hpt_trl.miniature import MODEL_PATH

FILE_NAME = "hpt_run.json"


@dataclass(frozen=True)
class Data:
    """The data of a run: what to call it, where it is on the Hub ("" if it is not), and what is known of its making."""

    name: str = ""
    hub_id: str = ""
    config: str = ""
    split: str = ""
    note: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a run came from, as only the command line knows it."""

    data: Data = field(default_factory=Data)
    reward_functions: Sequence[str] = ()
    command: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFacts:
    """All that the card needs and no other file of the folder holds; a text is "" where there is nothing to say.

    Args:
        name: of the model. repository: its id on the Hub.
        base: name of the model it started from. base_hub_id: id on the Hub of that, or of what that was made from.
        license: as the card of a local base names it.
        form: "full", "adapter" or "merged".
        is_chat: whether prompts are conversations. longest_answer: in tokens.
        data, rows: what it was trained on; None if nobody counted.
        algorithm: its name. method: how prompts learned, in sentences. has_demonstrations: whether from those at all.
        settings, versions: to be told as they are.
        step, max_steps: optimizer steps done and planned.
        held_out: of each evaluation by the trainer, the step and its metrics.
        command, config: what was typed, without secrets.
        trackers: name and address of charts.
        tags: for the metadata.
        paper: title, id and citation.
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

    def write(self, folder: str | Path) -> None:
        """Keep them in a folder."""
        write_atomically(Path(folder) / FILE_NAME, json.dumps(asdict(self), indent=1, default=str))


def read_facts(folder: str | Path) -> RunFacts:
    """What `RunFacts.write` kept.

    Raises:
        FileNotFoundError: if the folder holds none.
        ValueError: if another version wrote it.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} holds no {FILE_NAME}: give the output_dir of a run of HPTTrainer that has saved a model."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return RunFacts(**content | {"data": Data(**content["data"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{str(path)!r} is not what this version of hpt_trl writes: {error}.") from error


def hub_id(name: str) -> str:
    """The name if it can be the id of something on the Hub, else ""."""
    if not name or name.startswith((".", "/", "~")) or Path(name).exists():
        return ""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return ""
    return name


def base_of(name: str) -> dict[str, str]:
    """What the card says of the model that a run started from: `base`, `base_hub_id` and `license`.

    A folder is told by its last part, and by what its own card says it was made from.
    """
    if name == MODEL_PATH:
        return {"base": "the embedded model of hpt_trl", "base_hub_id": "", "license": ""}
    if found := hub_id(name):
        return {"base": found, "base_hub_id": found, "license": ""}
    card = Path(name) / "README.md"
    data = ModelCard.load(card, ignore_metadata_errors=True).data if name and card.is_file() else None
    ancestor = data.base_model if data else None
    return {
        "base": Path(name).name,
        "base_hub_id": hub_id(ancestor) if isinstance(ancestor, str) else "",
        "license": data.license if data and isinstance(data.license, str) else "",
    }


def settings_of(trainer: Any) -> dict[str, str]:
    """The options that say most about a run, each as a text."""
    args: HPTConfig = trainer.args
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * trainer.accelerator.num_processes
    processes = str(trainer.accelerator.num_processes)
    if processes != "1":
        processes += f", {trainer.accelerator.distributed_type.value}"
    told = {
        "algorithm": args.algorithm,
        "gate": f"{args.gate}, threshold {args.gate_threshold:g}" if args.gate == "switch" else args.gate,
        "weight of a demonstration": f"{args.sft_weight:g} (normalized by {args.sft_normalization})",
        "reward functions": ", ".join(trainer.origin.reward_functions or trainer.reward_func_names),
        "prompts a step": f"{rows / trainer.num_generations:g}",
        "answers a prompt": str(trainer.num_generations),
        "sampling": f"temperature {args.temperature:g}, top-p {args.top_p:g}",
        "longest answer": f"{args.max_completion_length} tokens",
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "policy loss": f"{args.loss_type}, scale_rewards {args.scale_rewards}, KL weight {args.beta:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "processes": processes,
        "seed": str(args.seed),
    }
    if args.algorithm != "hpt":
        del told["gate"]
    if trainer.adapter:
        told["adapter"] = trainer.adapter
    return told


def describe_adapter(model: Any) -> str:
    """Kind and size of a model's adapter, "" if it has none."""
    if not is_peft_model(model):
        return ""
    config = model.active_peft_config
    parts = [config.peft_type.value]
    parts += [
        f"{title} {value}"
        for title, name in (("rank", "r"), ("alpha", "lora_alpha"))
        if (value := getattr(config, name, None)) is not None
    ]
    targets = getattr(config, "target_modules", None) or []
    return ", ".join([*parts, *([f"on {', '.join(sorted(targets))}"] if not isinstance(targets, str) else [targets])])


def packages_of(trainer: Any, form: str) -> list[str]:
    """Names of what took part in a run."""
    names = ["trl", "transformers", "torch", "accelerate", "datasets", "tokenizers"]
    names += ["peft"] * (form != "full") + ["vllm"] * bool(trainer.args.use_vllm)
    return names + ["deepspeed"] * trainer.is_deepspeed_enabled


def collect(trainer: Any, name: str, data_name: str, tags: set[str], method: str, paper: dict[str, str]) -> RunFacts:
    """The facts of a run as it stands.

    Args:
        trainer: an HPTTrainer.
        name: of the model.
        data_name: id of the data on the Hub; "" leaves it to the trainer's origin.
        tags: for the metadata.
        method: from `describe_method`.
        paper: title, id and citation.
    """
    form = "adapter" if is_peft_model(trainer.model) else "merged" if trainer.adapter else "full"
    origin: Origin = trainer.origin
    data = Data(data_name, hub_id(data_name)) if data_name else origin.data
    rows = trainer.train_dataset
    evaluations = [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)]
    tracked = {"Weights & Biases": _wandb_url(), "trackio": get_trackio_space_url()}
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
        trackers={name: url for name, url in tracked.items() if url},
        tags=sorted(tags),
        paper=paper,
    )


def _is_chat(trainer: Any) -> bool:
    rows = trainer.train_dataset
    if isinstance(rows, Dataset) and "prompt" in rows.column_names:
        return not isinstance(rows[0]["prompt"], str)
    # Of a stream the tokenizer must say it: looking would download.
    return getattr(trainer.processing_class, "chat_template", None) is not None


def _wandb_url() -> str | None:
    # Whoever reports to it has imported it.
    run = getattr(sys.modules.get("wandb"), "run", None)
    return getattr(run, "url", None)
