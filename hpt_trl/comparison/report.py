"""Summary -> report: `report.md`, its figures, and the `summary.json` that both are made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpt_trl.common.files import write_atomically
from hpt_trl.comparison.figures import draw_all
from hpt_trl.comparison.methods import WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.summary import BUDGETS, Scores, Summary
from hpt_trl.comparison.tables import (
    base_table,
    cost_table,
    difference_table,
    headline_table,
    main_table,
    parts_table,
    search_table,
    verdicts,
)

SUMMARY = "summary.json"
REPORT = "report.md"


def write_report(summary: dict[str, Any], folder: Path) -> Path:
    """Write all three into a folder. Returns the path of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SUMMARY, json.dumps(summary))
    figures = draw_all(summary, folder)
    text = tables_text(summary)
    text += "\n\n## Figures\n\n" + "\n\n".join(
        f"![{caption}]({name})\n\n{caption}" for name, caption in figures.items()
    )
    write_atomically(folder / REPORT, text + "\n")
    return folder / REPORT


def tables_text(summary: Summary) -> str:
    """Everything of the report but its figures: made from the summary alone, so that anyone can make it again."""
    parts = ["# HPT and its baselines, in miniature", _settings_text(summary), headline_table(summary)]
    if "base" in summary["settings"]["methods"]:
        parts += ["## The bases", "Solved when sampled at temperature 1, as rollouts are, in %.", base_table(summary)]
    parts += ["## What was spent", _COST_NOTE, cost_table(summary)]
    for budget in BUDGETS:
        parts += _budget_parts(summary, budget)
    stages = {entry["run"]["stage"] for entry in summary["runs"]}
    if "ablation" in stages:
        parts += _ablation_parts(summary)
    if "textbook" in stages:
        parts += _textbook_parts(summary)
    if "search" in stages:
        parts += _search_parts(summary)
    return "\n\n".join(parts)


_COST_NOTE = (
    "GRPO, and SFT then GRPO, are TRL's own trainers, which compute every rollout. `HPTTrainer` leaves out those that "
    "teach nothing (by SRFT's loss all do), so that LUFFY, CHORD and HPT pay less for a step: see the steps that equal "
    "compute buys. GRPO has TRL's default loss (dapo, rewards divided by their group's spread), rollouts of LUFFY, "
    "CHORD and HPT the paper's (Dr. GRPO, which divides neither by spread nor by length)."
)


def _budget_parts(summary: Summary, budget: str) -> list[str]:
    models = summary["settings"]["models"]
    scores = Scores(summary, budget, models)
    parts = [f"## {BUDGETS[budget].capitalize()}", f"Mean over {_models_text(models)}.", *_with_tests(scores)]
    parts += ["Easy problems, as in pretraining, and hard ones, beyond it:", parts_table(summary, budget, models)]
    if len(models) > 1:
        for model in models:
            parts += [f"### {model}", main_table(Scores(summary, budget, [model]))]
    return parts


def _ablation_parts(summary: Summary) -> list[str]:
    model = summary["settings"]["models"][0]
    parts = ["## HPT with one thing changed", f"On {model}, at HPT's learning rate."]
    for budget, title in BUDGETS.items():
        scores = Scores(summary, budget, [model], stage="ablation", also=["hpt"])
        parts += [f"### {title.capitalize()}", *_with_tests(scores)[:2]]
    return parts


def _textbook_parts(summary: Summary) -> list[str]:
    model = summary["settings"]["models"][0]
    text = (
        f"On {model}: demonstrations work the hard problems out and give of the easy ones the bare answer. Learning "
        "rates as above. GRPO sees no demonstration: its runs are those above."
    )
    parts = ["## With a textbook's demonstrations", text]
    for budget, title in BUDGETS.items():
        scores = Scores(summary, budget, [model], stage="textbook", also=WITHOUT_DEMONSTRATIONS)
        parts += [f"### {title.capitalize()}", *_with_tests(scores)]
    return parts


def _search_parts(summary: Summary) -> list[str]:
    args = summary["settings"]
    text = (
        f"Accuracy in distribution, in %, on a small exam near the end of the first budget, with seed "
        f"{', '.join(map(str, args['search_seeds']))}, which is not reported, on the first model of each width. The "
        f"rate taken is bold; it holds for all models of that width. The exam has {args['curve_problems']} problems a "
        "suite: rates a few points apart are hardly told apart. Where the lowest is taken, no lower one was tried."
    )
    return ["## Search for the learning rates", text, search_table(summary)]


def _with_tests(scores: Scores) -> list[str]:
    """The main table and, where HPT is among the methods, how far it is from the others."""
    if "hpt" not in scores.methods:
        return [main_table(scores)]
    return [main_table(scores), difference_table(scores), verdicts(scores)]


def _models_text(models: Sequence[str]) -> str:
    return f"{len(models)} models" if len(models) > 1 else f"1 model, {models[0]}"


def _settings_text(summary: Summary) -> str:
    args = summary["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return (
        f"{_models_text(args['models'])}, seeds {', '.join(map(str, args['seeds']))}; {args['training_problems']} "
        f"training prompts with a demonstration each, drawn anew for each seed; {args['prompts_per_step']} prompts a "
        f"step, {args['num_generations']} rollouts each. Equal optimizer steps: {args['steps']}. Equal compute: "
        f"{args['compute'] / 1e6:g} million token passes, forward 1 and backward 2, generation included.\n\nAccuracy "
        f"in %: {args['test_problems']} held-out problems a suite, {args['test_samples']} samples each at temperature "
        f"{args['temperature']:g}; ± half the width of the 95 % t interval over seeds; best in bold. P: t test of the "
        "difference to HPT, paired by seed, corrected for the number of methods (Holm). Models and held-out problems "
        "are the same with every seed: what is said is said of these. Out of distribution is what post-training never "
        "shows; pretraining held easy problems of these suites too.\n\n"
        f"{summary['seconds'] / 3600:.1f} process hours of runs, bases apart; {versions}."
    )
