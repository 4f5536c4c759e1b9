"""`hpt-trl quickstart`: train the bundled model with GRPO and with HPT, and compare both on held-out problems."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from trl import ModelConfig

from hpt_trl.commands.push import PushArguments, push
from hpt_trl.commands.report import write_report
from hpt_trl.commands.train import HPTScriptArguments, build_trainer, run
from hpt_trl.common.command_line import parse, run_errors, user_errors
from hpt_trl.common.configs import PREFIX
from hpt_trl.common.logs import say
from hpt_trl.common.masking import safe_command
from hpt_trl.comparison.statistics import Interval, interval
from hpt_trl.config import HPTConfig
from hpt_trl.data.sources import DIGIT_SUMS, MINIATURE
from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.evaluate import Evaluation
from hpt_trl.evaluation.evaluate import run as run_evaluation
from hpt_trl.report.methods_figure import plot_methods
from hpt_trl.report.run_folder import Run, read_run
from hpt_trl.trainer.hpt import HPTTrainer

PROG = "hpt-trl quickstart"
CONFIG = f"{PREFIX}quickstart"
METHODS = {"GRPO": ["--gate", "off"], "HPT": []}
"""Options of each method; all others are the same."""
_BEFORE = "before"
_HELD_OUT = 740


@dataclass
class QuickstartArguments:
    """
    Arguments of `hpt-trl quickstart`.

    Args:
        output_dir (`str`): Folder for the runs, their report, the figure and the scores.
    """

    output_dir: str = field(default="runs/quickstart", metadata={"help": "Output folder."})
    seeds: int = field(default=3, metadata={"help": "Number of runs of each method; their seeds begin with 0."})
    max_steps: int = field(default=60, metadata={"help": "Number of optimizer steps of each run."})
    problems: int = field(
        default=300, metadata={"help": f"Number of held-out problems to evaluate on, at most {_HELD_OUT}."}
    )

    def __post_init__(self) -> None:
        for name in ("seeds", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 1 <= self.problems <= _HELD_OUT:
            raise ValueError(
                f"problems must be from 1 to {_HELD_OUT}, got {self.problems}: the bundled digit sums have {_HELD_OUT} "
                "held-out problems."
            )

    def run_folder(self, method: str, seed: int) -> Path:
        """Output folder of one run."""
        return Path(self.output_dir) / f"{method.lower()}_seed{seed}"


def train_and_score(args: QuickstartArguments, method: str, seed: int, options: Sequence[str]) -> dict[str, Any]:
    """Train one run, evaluate it, write its model card with this evaluation; return the scores."""
    folder = args.run_folder(method, seed)
    run(_trainer(args, folder, seed, options))
    score = held_out(args, str(folder), seed, folder / "evaluation")
    push(PushArguments(str(folder)))  # only writes the card
    return score


def _trainer(args: QuickstartArguments, folder: Path, seed: int, options: Sequence[str]) -> HPTTrainer:
    flags = ["--config", CONFIG, "--output_dir", str(folder), "--max_steps", str(args.max_steps)]
    flags += ["--seed", str(seed), *options, "--overwrite_output_dir", "true"]
    trainer = build_trainer(*parse((HPTScriptArguments, HPTConfig, ModelConfig), flags, PROG))
    trainer.origin = replace(trainer.origin, command=safe_command("hpt-trl train", flags))
    return trainer


def held_out(args: QuickstartArguments, model: str, seed: int, output: Path) -> dict[str, Any]:
    """Evaluate with one completion per held-out problem, sampled as in training; write and return the scores."""
    output.mkdir(parents=True, exist_ok=True)
    options = EvaluateArguments(
        model,
        MINIATURE,
        dataset_config=DIGIT_SUMS,
        limit=args.problems,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=32,
        batch_size=100,
        seed=seed,
        output=str(output / "results.json"),
    )
    return _score(run_evaluation(options))


def _score(result: Evaluation) -> dict[str, Any]:
    """Accuracy with the interval of `hpt-trl evaluate`, and the answer to the first problem."""
    ((name, score),) = result.scores.items()
    (first,) = (answer.text for answer in result.answers[name] if answer.problem == 0)
    mean = score.average
    return {"accuracy": mean.value, "low": mean.low, "high": mean.high, "first_answer": first}


def quickstart(args: QuickstartArguments) -> None:
    """Train and evaluate every method with every seed; write scores, figure, report and model cards."""
    seeds = range(args.seeds)
    scores: dict[str, list[dict[str, Any]]] = {_BEFORE: [], **{method: [] for method in METHODS}}
    runs: dict[str, list[Run]] = {method: [] for method in METHODS}
    for seed in seeds:
        scores[_BEFORE].append(held_out(args, MINIATURE, seed, Path(args.output_dir) / f"before_seed{seed}"))
    say(f"Before training, the model solves {scores[_BEFORE][0]['accuracy']:.1%} of {args.problems} held-out problems.")
    for number, (seed, method) in enumerate(((seed, method) for seed in seeds for method in METHODS), 1):
        say(f"\nRun {number} of {len(METHODS) * args.seeds}: {method}, seed {seed}, {args.max_steps} steps.")
        score = train_and_score(args, method, seed, METHODS[method])
        scores[method].append(score)
        runs[method].append(read_run(args.run_folder(method, seed)))
        say(f"{method}, seed {seed}: {score['accuracy']:.1%} of the held-out problems solved.")
    write_results(args, scores, runs)


def write_results(
    args: QuickstartArguments, scores: Mapping[str, Sequence[Mapping[str, Any]]], runs: Mapping[str, Sequence[Run]]
) -> None:
    """Write `quickstart.json`, the figure and a report of the first seed; print the table and what to look at next."""
    folder = Path(args.output_dir)
    content = {"problems": args.problems, "max_steps": args.max_steps, "scores": scores}
    (folder / "quickstart.json").write_text(json.dumps(content, indent=1))
    plot_methods(runs, scores, folder / "quickstart.png")
    page = write_report([of_seeds[0] for of_seeds in runs.values()], folder / "_report")
    Console().print(accuracy_table(scores, args.problems))
    best = args.run_folder("HPT", 0)
    say(
        f"Figure: {folder / 'quickstart.png'}\nReport of both methods, seed 0: {page}\n"
        f"Model, model card and gate history of HPT, seed 0: {best}"
    )


def accuracy_table(scores: Mapping[str, Sequence[Mapping[str, Any]]], problems: int) -> Table:
    """A rich table with a row per seed (intervals over problems) and, for several seeds, their mean (over seeds)."""
    table = Table(
        "seed",
        *scores,
        title=f"Held-out problems solved, of {problems} (95% interval)",
        caption="Intervals: Wilson's over problems for a seed, t over seeds for the mean.",
    )
    for seed, row in enumerate(zip(*scores.values())):
        cells = (Interval(score["accuracy"], score["low"], score["high"]) for score in row)
        table.add_row(str(seed), *map(accuracy_text, cells))
    if table.row_count > 1:
        means = (interval([score["accuracy"] for score in of_seeds]) for of_seeds in scores.values())
        table.add_row("mean", *map(accuracy_text, means))
    return table


def accuracy_text(accuracy: Interval) -> str:
    """An accuracy and its interval, which is cut at 0 and 1."""
    return f"{accuracy.mean:.1%} ({max(0.0, accuracy.low):.1%} to {min(1.0, accuracy.high):.1%})"


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl quickstart`."""
    # A model this small gains nothing from a second thread, and on a busy machine it loses minutes.
    torch.set_num_threads(1)
    with user_errors(PROG):
        (args,) = parse((QuickstartArguments,), argv, PROG)
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    with run_errors(PROG, how_to_continue=""):
        quickstart(args)
