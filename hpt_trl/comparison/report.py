"""Summary -> report: `report.md`, its figures, and the `summary.json` that both are made of."""

import json
from pathlib import Path
from typing import Any

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
from hpt_trl.journal import write_safely

SUMMARY = "summary.json"
REPORT = "report.md"


def write_report(summary: dict[str, Any], folder: Path) -> Path:
    """Write all three into a folder. Returns the path of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safely(folder / SUMMARY, json.dumps(summary))
    figures = draw_all(summary, folder)
    text = tables_text(summary)
    text += "\n\n## Figures\n\n" + "\n\n".join(
        f"![{caption}]({name})\n\n{caption}" for name, caption in figures.items()
    )
    write_safely(folder / REPORT, text + "\n")
    return folder / REPORT


def tables_text(summary: Summary) -> str:
    """Everything of the report but its figures: made from the summary alone, so that anyone can make it again."""
    models = summary["settings"]["models"]
    parts = ["# HPT and its baselines, in miniature", _settings_text(summary), headline_table(summary)]
    if "base" in summary["settings"]["methods"]:
        parts += ["## The bases", "Solved when sampled at temperature 1, as rollouts are, in %.", base_table(summary)]
    parts += ["## What was spent", cost_table(summary)]
    for budget, title in BUDGETS.items():
        scores = Scores(summary, budget, models)
        parts += [f"## {title.capitalize()}", f"Mean over {len(models)} models.", main_table(scores)]
        if "hpt" in scores.methods:
            parts += [difference_table(scores), verdicts(scores)]
        parts += [
            "Problems such as pretraining held (easy), and beyond it (hard):",
            parts_table(summary, budget, models),
        ]
        if len(models) > 1:
            for model in models:
                parts += [f"### {model}", main_table(Scores(summary, budget, [model]))]
    if any(entry["run"]["stage"] == "ablation" for entry in summary["runs"]):
        parts += ["## HPT with one thing changed", f"On {models[0]}, at HPT's learning rate."]
        for budget, title in BUDGETS.items():
            scores = Scores(summary, budget, models[:1], stage="ablation", also=["hpt"])
            parts += [f"### {title.capitalize()}", main_table(scores), difference_table(scores)]
    if any(entry["run"]["stage"] == "textbook" for entry in summary["runs"]):
        text = (
            f"On {models[0]}: demonstrations work the hard problems out and give of the easy ones the bare answer. "
            "GRPO, which sees none, as above; learning rates as above."
        )
        parts += ["## With a textbook's demonstrations", text]
        for budget, title in BUDGETS.items():
            scores = Scores(summary, budget, models[:1], stage="textbook", also=WITHOUT_DEMONSTRATIONS)
            parts += [f"### {title.capitalize()}", main_table(scores), difference_table(scores), verdicts(scores)]
    if summary["learning_rates"]:
        seeds = ", ".join(map(str, summary["settings"]["search_seeds"]))
        text = (
            "Accuracy in distribution, in %, on a small exam near the end of the first budget, with seed "
            f"{seeds}, which is not reported. The rate taken is bold; it holds for all models of that width."
        )
        parts += ["## Search for the learning rates", text, search_table(summary)]
    return "\n\n".join(parts)


def _settings_text(summary: Summary) -> str:
    args = summary["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return (
        f"{len(args['models'])} models, seeds {', '.join(map(str, args['seeds']))}; {args['training_problems']} "
        f"training prompts with a demonstration each, drawn anew for each seed; {args['prompts_per_step']} prompts a "
        f"step, {args['num_generations']} rollouts each. Equal optimizer steps: {args['steps']}. Equal compute: "
        f"{args['compute'] / 1e6:g} million token passes, forward 1 and backward 2, generation included.\n\nAccuracy "
        f"in %: {args['test_problems']} held-out problems a suite, {args['test_samples']} samples each at temperature "
        f"{args['temperature']:g}; ± half the width of the 95 % t interval over seeds; best in bold. P: t test of the "
        "difference to HPT, paired by seed, corrected for the number of methods (Holm).\n\n"
        f"{summary['seconds'] / 3600:.1f} process hours; {versions}."
    )
