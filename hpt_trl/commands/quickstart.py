"""`hpt-trl quickstart`: train the bundled model with HPT; report accuracy before and after, and plot the run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from trl import ModelConfig

from hpt_trl.commands.train import HPTScriptArguments, build_trainer, run
from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.logs import say
from hpt_trl.common.masking import safe_command
from hpt_trl.config import HPTConfig
from hpt_trl.data.sources import MINIATURE
from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.evaluate import evaluate
from hpt_trl.evaluation.scores import wilson_interval
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.report.render import plot_run
from hpt_trl.trainer.hpt import HPTTrainer

CONFIG = Path(MODEL_PATH).with_name("quickstart.yaml")


@dataclass
class QuickstartArguments:
    """
    Arguments of `hpt-trl quickstart`.

    Args:
        output_dir (`str`): Folder for the trained model, the figure and the scores.
    """

    output_dir: str = field(default="runs/quickstart", metadata={"help": "Output folder of the run."})
    max_steps: int = field(default=60, metadata={"help": "Number of optimizer steps."})
    problems: int = field(default=300, metadata={"help": "Number of held-out problems to evaluate on, at most 500."})

    def __post_init__(self) -> None:
        if not 1 <= self.problems <= 500:
            raise ValueError(
                f"problems must be from 1 to 500, got {self.problems}: the bundled dataset has 500 held-out problems."
            )


def quickstart_trainer(args: QuickstartArguments) -> HPTTrainer:
    """Build the trainer from the bundled config."""
    flags = ["--config", str(CONFIG), "--output_dir", args.output_dir, "--max_steps", str(args.max_steps)]
    flags += ["--overwrite_output_dir", "true"]
    return build_trainer(*parse((HPTScriptArguments, HPTConfig, ModelConfig), flags, "hpt-trl quickstart"))


def quickstart(args: QuickstartArguments, trainer: HPTTrainer) -> None:
    """Evaluate, train, evaluate again; write `quickstart.json` and `run.png` to the output folder."""
    console = Console()
    before = held_out(MINIATURE, args.problems)
    run(trainer)
    after = held_out(args.output_dir, args.problems)
    folder = Path(args.output_dir)
    plot_run(folder, folder / "run.png")
    scores = {"before": before, "after HPT": after}
    (folder / "quickstart.json").write_text(json.dumps(scores, indent=1))
    console.print(accuracy_table(scores))
    say(f"Figure of the run: {folder / 'run.png'}. For a full report, run `hpt-trl report {folder}`.")


def held_out(model: str, problems: int) -> dict[str, Any]:
    """Accuracy of a model on held-out problems, with one completion per problem sampled as in training, and answers."""
    result = evaluate(
        EvaluateArguments(
            model, MINIATURE, limit=problems, temperature=1.0, top_p=1.0, max_new_tokens=48, batch_size=100
        )
    )
    ((name, score),) = result.scores.items()
    accuracy = score.average.value
    low, high = wilson_interval(accuracy, problems)
    ordered = sorted(result.answers[name], key=lambda answer: answer.problem)
    answers = [{"text": answer.text, "verdict": answer.verdict} for answer in ordered]
    return {"accuracy": accuracy, "low": low, "high": high, "problems": problems, "answers": answers}


def accuracy_table(scores: dict[str, dict[str, Any]]) -> Table:
    """A rich table with one row per model; the interval is Wilson's."""
    table = Table("model", "problems", "accuracy", "95% interval")
    for name, score in scores.items():
        interval = f"{score['low']:.1%} to {score['high']:.1%}"
        table.add_row(name, str(score["problems"]), f"{score['accuracy']:.1%}", interval)
    return table


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl quickstart`."""
    prog = "hpt-trl quickstart"
    # A model this small gains nothing from a second thread, and on a busy machine it loses minutes.
    torch.set_num_threads(1)
    with user_errors(prog):
        (args,) = parse((QuickstartArguments,), argv, prog)
        trainer = quickstart_trainer(args)
        trainer.origin = replace(trainer.origin, command=safe_command(prog, argv))
    quickstart(args, trainer)
