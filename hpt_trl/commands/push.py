"""`hpt-trl push`: update the model card of a run with its evaluations, and upload the run to the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import HfApi
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.logs import say
from hpt_trl.durability.hub import creating, pushing
from hpt_trl.model_card.evaluations import RESULTS, chosen_evaluations, read_results
from hpt_trl.model_card.model_card import CARD, write_card
from hpt_trl.model_card.run_facts import read_facts


@dataclass
class PushArguments:
    """
    Arguments of `hpt-trl push`.

    Args:
        folder (`str`): The `output_dir` of a run.
        repo_id (`str`, *optional*): Repository on the Hub. `None`: only the card is written, nothing is uploaded.
        evaluations (`list[str]`, *optional*): Outputs of `hpt-trl evaluate` for the card. `None`: those in subfolders
            of the run folder that are newer than the weights.
        private (`bool`, *optional*, defaults to `False`): Create the repository as private.
        revision (`str`, *optional*): Existing branch to push to. `None`: the main branch.
    """

    folder: str = field(metadata={"help": "Folder of the run (its output_dir)."})
    repo_id: str | None = field(
        default=None, metadata={"help": "Repository, such as me/my-model. Without it, only the card is written."}
    )
    evaluations: list[str] | None = field(
        default=None,
        metadata={"help": "Outputs of `hpt-trl evaluate` for the card. Default: those in subfolders of the run."},
    )
    private: bool = field(default=False, metadata={"help": "Create the repository as private."})
    revision: str | None = field(default=None, metadata={"help": "Existing branch to push to. Default: main."})


def push(args: PushArguments) -> str:
    """Write the card and, if a repository is given, upload the folder; return a summary.

    Raises:
        FileNotFoundError, ValueError: if the folder is not a run folder, or an evaluation is of another model.
        HubError: if the Hub cannot be reached or rejects the request.
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
    evaluations = "1 evaluation" if len(files) == 1 else f"{len(files)} evaluations"
    summary = f"Model card written to {str(folder / CARD)!r} with {evaluations}."
    if not args.repo_id:
        return summary
    with pushing(folder, repository):
        commit = HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload with hpt-trl push",
            revision=args.revision,
            ignore_patterns=[
                "_*",
                ".*",
                f"{PREFIX_CHECKPOINT_DIR}-*",
                "*.unfinished*",
                *_evaluation_patterns(folder, files),
            ],
        )
    return f"{summary} Pushed to {commit.commit_url}."


def _evaluation_patterns(folder: Path, files: Sequence[Path]) -> list[str]:
    """Patterns of the evaluations in the folder: the card has their scores, and benchmark problems must not leak."""
    root = folder.absolute()
    folders = {file.parent.absolute() for file in [*folder.glob(f"*/{RESULTS}"), *files]}
    subfolders = [path.relative_to(root) for path in folders if root in path.parents]
    return [f"{path}/*" for path in subfolders] + [file.name for file in files if file.parent.absolute() == root]


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl push`."""
    prog = "hpt-trl push"
    with user_errors(prog):
        (args,) = parse((PushArguments,), argv, prog, "folder")
        summary = push(args)
    say(summary)
