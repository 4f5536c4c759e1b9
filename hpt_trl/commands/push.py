"""`hpt-trl push`: the folder of a run goes to the Hub, after its card was brought up to date with its evaluations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from rich.console import Console
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.data.benchmarks import SUITES
from hpt_trl.durability.hub import creating, pushing
from hpt_trl.model_card.model_card import CARD, Metric, Result, write_card
from hpt_trl.model_card.run_facts import read_facts

RESULTS = "results.json"

_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass
class PushArguments:
    """
    What to push and where.

    Args:
        folder (`str`): The `output_dir` of a run.
        repo_id (`str`, *optional*): Repository on the Hub. `None`: nothing is pushed, the card is written.
        evaluations (`list[str]`, *optional*): Outputs of `hpt-trl evaluate` for the card. `None`: those in folders of
            the run's folder that are newer than its weights.
        private (`bool`, *optional*, defaults to `False`): Create the repository as a private one.
        revision (`str`, *optional*): Branch to push to, which must exist. `None`: the main one.
    """

    folder: str = field(metadata={"help": "Folder of the run: its output_dir."})
    repo_id: str | None = field(
        default=None, metadata={"help": "Repository, like me/my-model; without it, only the card is written."}
    )
    evaluations: list[str] | None = field(
        default=None,
        metadata={"help": "Outputs of `hpt-trl evaluate` for the card. Default: those in folders of the run's folder."},
    )
    private: bool = field(default=False, metadata={"help": "Create the repository as a private one."})
    revision: str | None = field(default=None, metadata={"help": "Branch to push to, which must exist."})


def push(args: PushArguments) -> str:
    """Write the card, and push the folder where a repository is named; returns what was done.

    Raises:
        FileNotFoundError, ValueError: if the folder is no run's, or an evaluation is not of its model.
        HubError: if the Hub cannot be reached or refuses.
    """
    folder = Path(args.folder)
    facts = read_facts(folder)
    if args.repo_id:
        with creating(args.repo_id):
            repository = HfApi().create_repo(args.repo_id, private=args.private or None, exist_ok=True).repo_id
        facts = replace(facts, repository=repository, name=repository.split("/")[-1])
    files = chosen_evaluations(folder, args.evaluations)
    write_card(facts, folder, [result for file in files for result in read_results(file, folder, args.repo_id)])
    facts.write(folder)
    told = f"The card {str(folder / CARD)!r} holds {len(files)} evaluation{'s' * (len(files) != 1)}."
    if not args.repo_id:
        return told
    with pushing(folder, repository):
        done = HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload by hpt-trl push",
            revision=args.revision,
            ignore_patterns=["_*", ".*", f"{PREFIX_CHECKPOINT_DIR}-*", "*.unfinished*", *_evaluated(folder, files)],
        )
    return f"{told} Pushed to {done.commit_url}."


def _evaluated(folder: Path, files: Sequence[Path]) -> list[str]:
    """Patterns of evaluations within the folder: the card has their scores, and benchmarks are not to be spread."""
    folders = {file.parent.absolute() for file in [*folder.glob(f"*/{RESULTS}"), *files]}
    inside = [each.relative_to(folder.absolute()) for each in folders if folder.absolute() in each.parents]
    return [f"{each}/*" for each in inside] + [
        file.name for file in files if file.parent.absolute() == folder.absolute()
    ]


def chosen_evaluations(folder: Path, named: Sequence[str] | None) -> list[Path]:
    """Files of results: those named, or those in folders of the run's folder that are newer than its weights.

    Raises:
        FileNotFoundError: if a named one does not exist.
    """
    if named is None:
        saved = max((path.stat().st_mtime for name in _WEIGHTS for path in folder.glob(name)), default=0.0)
        return [path for path in sorted(folder.glob(f"*/{RESULTS}")) if path.stat().st_mtime >= saved]
    files = [Path(name) / RESULTS if Path(name).is_dir() else Path(name) for name in named]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"There is no evaluation {str(file)!r}. Give the --output of `hpt-trl evaluate`: a folder with "
                f"{RESULTS}, or a .json file."
            )
    return files


def read_results(file: Path, folder: Path, repo_id: str | None) -> list[Result]:
    """The results in one file, for the card of the model in `folder`.

    Raises:
        ValueError: if they are not what `hpt-trl evaluate` writes, or of another model.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        settings, suites = content["settings"], content["suites"]
        results = [_result(name, suite, settings) for name, suite in suites.items()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} is not what `hpt-trl evaluate` writes: {error!r}.") from error
    model = settings["model"]
    if model != repo_id and Path(model).name != folder.absolute().name:
        raise ValueError(f"{str(file)!r} is of the model {model!r}, and not of {str(folder)!r}: leave it out.")
    return results


def _result(name: str, suite: Mapping[str, Any], settings: Mapping[str, Any]) -> Result:
    known = SUITES.get(name)
    samples, limit = suite["samples"], settings["limit"]
    found = [Metric("accuracy", f"avg@{samples}", **suite["average"])]
    found += [Metric("pass@k", f"pass@{k}", **estimate) for k, estimate in suite["pass_at"].items()]
    return Result(
        title=suite["title"],
        # Of other data nobody knows whether their name was a path or an id.
        hub_id=known.hub_id if known else "",
        config=(known.config if known else None) or "",
        split=known.split if known else settings["split"],
        problems=f"{'first ' * bool(limit)}{len(suite['right'])} problems",
        sampling=(
            f"temperature {suite['temperature']:g}, top-p {suite['top_p']:g}, at most {suite['max_new_tokens']} tokens"
        ),
        metrics=found,
    )


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl push`."""
    prog = "hpt-trl push"
    with user_errors(prog):
        (args,) = parse((PushArguments,), argv, prog, "folder")
        told = push(args)
    Console().print(told, markup=False, highlight=False, soft_wrap=True)
