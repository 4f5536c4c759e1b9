"""The report of a comparison: `report.md`, its figures, and the `summary.json` that both are made from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpt_trl.common.files import write_atomically
from hpt_trl.comparison.figures import draw_all
from hpt_trl.comparison.methods import WITHOUT_DEMONSTRATIONS
from hpt_trl.comparison.regime_map import has_map, map_parts
from hpt_trl.comparison.summary import BUDGETS, Scores, Summary
from hpt_trl.comparison.tables import (
    base_table,
    cost_table,
    difference_table,
    headline_table,
    main_table,
    parts_table,
    search_table,
    significance_text,
)

SUMMARY = "summary.json"
REPORT = "report.md"


def write_report(summary: dict[str, Any], folder: Path) -> Path:
    """Write `report.md`, figures and `summary.json` to a folder. Returns the path of the report."""
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
    """The report without its figures. It depends on the summary only, so anyone can reproduce it.

    With regimes, it is about these: the main runs have a report of their own, with more seeds and methods.
    """
    parts = ["# HPT and its baselines on miniature models", _settings_text(summary)]
    if has_map(summary):
        return "\n\n".join([*parts, *map_parts(summary), *_search_parts(summary)])
    parts.append(headline_table(summary))
    if "base" in summary["settings"]["methods"]:
        parts += ["## Base models", "Accuracy in % at temperature 1, as for rollouts.", base_table(summary)]
    parts += ["## Cost", _COST_NOTE, cost_table(summary)]
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
    "Training is the fraction of token passes spent on forward passes with a gradient and on backward passes; the rest "
    "is generation. GRPO and SFT then GRPO use TRL's own trainers, which compute every rollout. `HPTTrainer` skips "
    "rollouts without signal (with SRFT's loss, every rollout has signal). LUFFY, CHORD and HPT therefore spend less "
    "per step and take more steps at equal compute. GRPO uses TRL's default loss (DAPO, rewards divided by the "
    "standard deviation of their group). Rollouts of LUFFY, CHORD and HPT use the paper's loss (Dr. GRPO, which "
    "divides neither by the standard deviation nor by the length)."
)


def _budget_parts(summary: Summary, budget: str) -> list[str]:
    models = summary["settings"]["models"]
    scores = Scores(summary, budget, models)
    parts = [f"## {BUDGETS[budget].capitalize()}", f"Mean over {_models_text(models)}.", *_with_tests(scores)]
    parts += [
        "Easy problems are like those of pretraining, hard problems go beyond it:",
        parts_table(summary, budget, models),
    ]
    if len(models) > 1:
        for model in models:
            parts += [f"### {model}", main_table(Scores(summary, budget, [model]))]
    return parts


def _ablation_parts(summary: Summary) -> list[str]:
    model = summary["settings"]["models"][0]
    parts = ["## Ablations", f"HPT with one setting changed, on {model}, at HPT's learning rate."]
    for budget, title in BUDGETS.items():
        scores = Scores(summary, budget, [model], stage="ablation", also=["hpt"])
        parts += [f"### {title.capitalize()}", *_with_tests(scores)[:2]]
    return parts


def _textbook_parts(summary: Summary) -> list[str]:
    model = summary["settings"]["models"][0]
    text = (
        f"On {model}. As in a textbook, demonstrations work out the hard problems but give only the answer of the easy "
        "ones. Learning rates are those of the main runs. GRPO uses no demonstrations, so its runs are the main runs."
    )
    parts = ["## Textbook demonstrations", text]
    for budget, title in BUDGETS.items():
        scores = Scores(summary, budget, [model], stage="textbook", also=WITHOUT_DEMONSTRATIONS)
        parts += [f"### {title.capitalize()}", *_with_tests(scores)]
    return parts


def _search_parts(summary: Summary) -> list[str]:
    args = summary["settings"]
    text = (
        "In-distribution accuracy in % on a small evaluation near the end of the first budget, for the first model of "
        f"each width. Seeds of the search: {', '.join(map(str, args['search_seeds']))}; they are not reported "
        "otherwise. The selected learning rate is bold and is used for all models of that width. The evaluation has "
        f"{args['curve_problems']} problems per suite, so it can hardly distinguish learning rates a few points apart. "
        "Where the lowest learning rate was selected, no lower one was tried."
    )
    return ["## Learning rate search", text, search_table(summary)]


def _with_tests(scores: Scores) -> list[str]:
    """The main table and, if HPT is among the methods, its differences to the others."""
    if scores.reference is None:
        return [main_table(scores)]
    return [main_table(scores), difference_table(scores), significance_text(scores)]


def _models_text(models: Sequence[str]) -> str:
    return f"{len(models)} models" if len(models) > 1 else f"1 model, {models[0]}"


def _settings_text(summary: Summary) -> str:
    args = summary["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    demonstrated = "as many as a regime says" if has_map(summary) else args.get("demonstrations") or "each"
    return (
        f"{_models_text(args['models'])}; seeds {', '.join(map(str, args['seeds']))}; {args['training_problems']} "
        f"training prompts, {demonstrated} with a demonstration, sampled separately for each seed; "
        f"{args['prompts_per_step']} prompts per step, {args['num_generations']} rollouts per prompt. "
        f"Equal optimizer steps: {args['steps']}. "
        f"Equal compute: {args['compute'] / 1e6:g} million token passes; a forward pass counts 1 per token, a backward "
        "pass 2, and generation is included.\n\n"
        f"Accuracy in %: {args['test_problems']} held-out problems per suite, {args['test_samples']} samples per "
        f"problem at temperature {args['temperature']:g}; ± is half the width of the 95% t interval over seeds; the "
        "best value of each column is bold. p: t test of the difference, paired by seed, with Holm's correction "
        "for the number of methods. All seeds share the same models and held-out problems, so intervals and tests "
        "apply to these only. The out-of-distribution suites do not occur in post-training; pretraining contained easy "
        "problems of these suites too.\n\n"
        f"{summary['seconds'] / 3600:.1f} process hours of runs, without building the base models; {versions}."
    )
