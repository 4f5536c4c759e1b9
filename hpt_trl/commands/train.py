"""The training script: `hpt-trl train --config X.yaml`, or `accelerate launch -m hpt_trl.train --config X.yaml`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import yaml
from trl import ModelConfig, ScriptArguments, get_peft_config, get_quantization_config
from trl.rewards import think_format_reward

from hpt_trl.common.command_line import parse, run_errors, user_errors
from hpt_trl.common.configs import config_file
from hpt_trl.common.imports import import_callable, is_dotted_path
from hpt_trl.common.logs import say
from hpt_trl.common.masking import safe_command, without_secrets
from hpt_trl.config import HPTConfig
from hpt_trl.data.readers import REPORT_SUFFIX, local_files
from hpt_trl.data.sources import BUNDLED_TASKS, CHAINS, MINIATURE, resolve_model, resolve_rows
from hpt_trl.model_card.run_facts import Data, Origin, hub_id
from hpt_trl.trainer.hpt import HPTTrainer
from hpt_trl.trainer.trl_hooks import save_model_without_pushing
from hpt_trl.verifier.verdicts import accuracy_reward, format_reward

REWARDS: dict[str, Callable[..., Any]] = {
    "accuracy_reward": accuracy_reward,
    "format_reward": format_reward,
    "think_format_reward": think_format_reward,
}


@dataclass
class HPTScriptArguments(ScriptArguments):
    """
    TRL's script arguments, with reward functions given by name or dotted path.

    Args:
        reward_funcs (`list[str]`, *optional*, defaults to `["accuracy_reward"]`):
            `"accuracy_reward"` (whether the last boxed answer is correct; the gate uses this one), `"format_reward"`
            (reasoning within tags and exactly one box), TRL's `"think_format_reward"`, or the dotted path of your own
            function, such as `"my_module.my_reward"`. Its module is imported, with modules in the current directory
            taking precedence. Metrics and `gate_reward` refer to the function by its `__name__`.
    """

    reward_funcs: list[str] = field(
        default_factory=lambda: ["accuracy_reward"],
        metadata={
            "help": f"Reward functions: names from {sorted(REWARDS)}, or dotted paths of your own functions, such as "
            "my_module.my_reward."
        },
    )


def build_trainer(script: HPTScriptArguments, args: HPTConfig, model: ModelConfig) -> HPTTrainer:
    """Load the model and the data and build the trainer, as TRL's `trl grpo` does.

    Raises:
        ValueError, OSError, ImportError: if the configuration is invalid.
    """
    reward_funcs: list[Any] = [_reward_function(name) for name in script.reward_funcs]
    _check_paths(script, args)
    Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
    name = resolve_model(model.model_name_or_path)
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **cast(dict, args.model_init_kwargs or {}),  # TRL has already parsed a string into a dict
    }

    def rows(split: str) -> Any:
        return resolve_rows(script.dataset_name, split, script.dataset_config, script.dataset_streaming)

    train_rows = rows(script.dataset_train_split)
    if accuracy_reward in reward_funcs and "solution" not in (train_rows.column_names or ["solution"]):
        raise ValueError(
            f"accuracy_reward needs a 'solution' column with the correct answers, got {train_rows.column_names}. "
            "`hpt-trl prepare` creates one."
        )
    trainer = HPTTrainer(
        model=name,
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=train_rows,
        eval_dataset=rows(script.dataset_test_split) if args.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.origin = Origin(_data(script), tuple(script.reward_funcs))
    return trainer


def _reward_function(name: str) -> Callable[..., Any]:
    """The reward function with a name or dotted path."""
    if name in REWARDS:
        return REWARDS[name]
    if not is_dotted_path(name):
        raise ValueError(
            f"reward_funcs must be names from {sorted(REWARDS)} or dotted paths such as my_module.my_reward, got "
            f"{name!r}."
        )
    return import_callable(name, "reward_funcs")


def _data(script: HPTScriptArguments) -> Data:
    """Description of the dataset for the model card."""
    name, split = script.dataset_name or "", script.dataset_train_split
    if name == MINIATURE:
        return Data(BUNDLED_TASKS[script.dataset_config or CHAINS], split=split)
    if dataset_id := hub_id(name):
        return Data(name, dataset_id, script.dataset_config or "", split)
    return _local_data(name, split)


def _command_and_config(argv: Sequence[str], processes: int) -> dict[str, Any]:
    """Command and configuration file, as the model card shows them."""
    prog = f"accelerate launch --num_processes {processes} -m hpt_trl.train" if processes > 1 else "hpt-trl train"
    config: Any = {}
    if "--config" in argv[:-1]:
        config = yaml.safe_load(config_file(argv[argv.index("--config") + 1]).read_text(encoding="utf-8"))
    return {"command": safe_command(prog, argv), "config": without_secrets(config)}


def _local_data(name: str, split: str) -> Data:
    """Name local data after the file or, if the file has a report of `hpt-trl prepare` beside it, after its source."""
    files = local_files(name, split)
    report = files[0].with_name(files[0].name + REPORT_SUFFIX)
    if not report.is_file():
        return Data(Path(name).name, split=split)
    content = json.loads(report.read_text(encoding="utf-8"))
    settings = content["settings"]
    rows_read = content["read"] if "read" in content else content["came"]  # "came": written by early versions
    note = f"prepared by `hpt-trl prepare`, which kept {content['kept']:,} of {rows_read:,} rows"
    source = str(settings["source"])
    return Data(Path(source).name, hub_id(source), settings["dataset_config"] or "", settings["split"], note)


def _check_paths(script: HPTScriptArguments, args: HPTConfig) -> None:
    resume = _resume_option(args)
    if isinstance(resume, str) and resume != "auto" and not Path(resume).is_dir():
        raise FileNotFoundError(
            f"resume_from_checkpoint is not a folder: {resume!r}. Pass a checkpoint folder such as out/checkpoint-100, "
            "true for the latest checkpoint in output_dir, or auto for the latest one if there is any."
        )
    if args.eval_strategy != "no" and Path(script.dataset_name or "").is_file():
        raise ValueError(
            f"eval_strategy={str(args.eval_strategy)!r} needs held-out rows, but dataset_name is a single file: "
            f"{script.dataset_name!r}. Pass a folder with train.jsonl and test.jsonl."
        )


def _resume_option(args: HPTConfig) -> str | bool | None:
    """The value of `resume_from_checkpoint`; the command line passes true and false as strings."""
    value = args.resume_from_checkpoint
    return {"true": True, "false": False}.get(str(value).lower(), value)


def run(trainer: HPTTrainer) -> None:
    """Train, save the model and the trainer state, and push to the Hub if the config asks for it."""
    args = trainer.args
    trainer.train(resume_from_checkpoint=_resume_option(args))
    save_model_without_pushing(trainer, str(args.output_dir))
    trainer.save_state()
    # After `save_model`, because PEFT writes its own model card when it saves an adapter.
    trainer.create_model_card()
    if trainer.accelerator.is_local_main_process:
        say(f"Model and gate.parquet saved to {args.output_dir}.")
    if args.push_to_hub:
        trainer.push_to_hub()


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl train`."""
    prog = "hpt-trl train"
    with user_errors(prog):
        script, args, model = parse((HPTScriptArguments, HPTConfig, ModelConfig), argv, prog)
        trainer = build_trainer(script, args, model)
        trainer.origin = replace(trainer.origin, **_command_and_config(argv, trainer.accelerator.num_processes))
    # Any other error during training is a bug, so its traceback is shown.
    with run_errors(prog):
        try:
            run(trainer)
        finally:
            # A process group that is destroyed at interpreter exit may hang: gloo joins a thread that is waiting.
            trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1:])
