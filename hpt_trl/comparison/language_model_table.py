"""Markdown report of the comparison on a real language model, made from its JSON only, so anyone can reproduce it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpt_trl.comparison.methods import METHODS
from hpt_trl.comparison.statistics import Interval, holm, interval, paired_p
from hpt_trl.comparison.summary import BUDGETS
from hpt_trl.comparison.tables import best_in_bold, markdown, p_text, title_of

Results = Mapping[str, Any]

PARTS = {"all": "all", "gain": "sums", "loss": "differences", "price": "products"}
"""Kinds of problems and their column titles."""

_REFERENCES = ("hpt", "warmup_hpt")


def report_text(results: Results) -> str:
    """The complete report."""
    settings, samples = results["settings"], results["settings"]["test_samples"]
    count = len(seeds_of(results))
    parts = [
        f"# HPT and its baselines on {settings['model']}",
        _settings_text(results),
        "A token counts 1 in a forward pass and 2 in a backward pass; generation is included. Equal compute is "
        f"{settings['compute']:,.0f} token passes, what GRPO takes for {settings['steps']} steps.",
        f"Accuracy in %, sampled at temperature 1 with {samples} samples for each of {settings['test_problems']} "
        f"held-out problems: mean over {count} seeds ± half of its 95% t interval. The problems are the same for all "
        "seeds, so the intervals do not include the variation over problems.",
    ]
    for budget, title in BUDGETS.items():
        parts += [f"## At {title}", score_table(results, budget)]
        for reference in _REFERENCES:
            if reference in methods_of(results):
                parts.append(difference_table(results, budget, reference))
    parts += [
        "## Learning rates and cost",
        "Accuracy in % on other held-out problems after the first budget, mean over the seeds of the search; the best "
        "of a row in bold is what the method trained with.",
        search_table(results),
        "Cost of a run, mean over the seeds. The share is that of the prompts which the gate trained on their "
        "demonstration.",
        cost_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def score_table(results: Results, budget: str) -> str:
    """Accuracy of each method at a budget, overall and by kind of problem."""
    return best_in_bold(
        list(PARTS.values()),
        {
            method: [interval(accuracies(results, method, budget, part)) for part in PARTS]
            for method in methods_of(results)
        },
    )


def difference_table(results: Results, budget: str, reference: str) -> str:
    """The reference minus each other method: paired t tests over the seeds, Holm's correction over methods."""
    own = accuracies(results, reference, budget)
    others = [method for method in methods_of(results) if method not in (reference, "base")]
    differences = {
        method: [mine - other for mine, other in zip(own, accuracies(results, method, budget))] for method in others
    }
    p_values = holm({method: paired_p(differences[method]) for method in others})
    rows = [
        [
            title_of(method),
            f"{100 * sum(differences[method]) / len(own):+.1f}",
            p_text(p_values[method]),
            " / ".join(f"{100 * difference:+.1f}" for difference in differences[method]),
        ]
        for method in others
    ]
    return markdown([f"{title_of(reference)} minus", "points", "p", "by seed"], rows)


def search_table(results: Results) -> str:
    """Accuracy of each method at each learning rate of the search."""
    rates = results["settings"]["learning_rates"]
    rows: dict[str, list[Interval]] = {}
    for method in results["learning_rates"]:
        for rate in rates:
            found = [
                entry["accuracy"]
                for entry in results["search"]
                if (entry["run"]["method"], entry["run"]["learning_rate"]) == (method, rate)
            ]
            rows.setdefault(method, []).append(interval(found))
    lines = []
    for method, values in rows.items():
        cells = [f"{100 * value.mean:.1f}" for value in values]
        chosen = rates.index(results["learning_rates"][method])
        cells[chosen] = f"**{cells[chosen]}**"
        lines.append([title_of(method), *cells])
    return markdown(["", *(f"{rate:g}" for rate in rates)], lines)


def cost_table(results: Results) -> str:
    """Optimizer steps and token passes at each budget, CPU minutes of a run, and the share of demonstrations."""
    rows = []
    for method in methods_of(results):
        runs = _runs(results, method)
        if not METHODS[method].phases:
            continue
        cells = []
        for budget in BUDGETS:
            spent = [run["spent"][budget] for run in runs]
            cells += [f"{np.mean([cost['step'] for cost in spent]):.0f}"]
            cells += [f"{np.mean([cost['compute'] for cost in spent]) / 1e3:.1f}"]
        minutes = np.mean([run["training_cpu_seconds"] for run in runs]) / 60
        shares = [share for run in runs for share in run["demonstration_share"]]
        rows.append([title_of(method), *cells, f"{minutes:.1f}", f"{np.mean(shares):.0%}" if shares else "-"])
    header = ["", "steps", "1,000 token passes", "steps at equal compute", "1,000 token passes", "CPU minutes"]
    return markdown([*header, "demonstrated"], rows)


def methods_of(results: Results) -> list[str]:
    """Methods in the order of the tables."""
    return list(dict.fromkeys(run["run"]["method"] for run in results["runs"]))


def seeds_of(results: Results) -> list[int]:
    """Seeds of the reported runs."""
    return list(dict.fromkeys(run["run"]["seed"] for run in results["runs"]))


def accuracies(results: Results, method: str, budget: str, part: str = "all") -> list[float]:
    """Fraction of correct samples of a method on a part of the problems, by seed."""
    samples = results["settings"]["test_samples"]
    is_counted_P = np.array([part in ("all", kind) for kind in results["kinds"]])
    return [
        float((np.array(run["marks"][budget]["right"]) / samples)[is_counted_P].mean())
        for run in _runs(results, method)
    ]


def _runs(results: Results, method: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["run"]["method"] == method]


def _settings_text(results: Results) -> str:
    settings = results["settings"]
    seconds = {
        name: sum(run[f"{name}_cpu_seconds"] for run in [*results["search"], *results["runs"]])
        for name in ("training", "evaluation")
    }
    hours = (results["practice_cpu_seconds"] + sum(seconds.values())) / 3600
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Word problems with one calculation on two numbers. The base model of all methods is {settings['model']} "
        f"after {settings['practice_steps']} steps of SFT (practice), each on {settings['practice_prompts']} problems "
        f"with one-digit numbers, with learning rate {settings['practice_learning_rate']:g}. Every method then trains "
        f"on numbers of up to two digits: {settings['training_problems']} problems, of which "
        f"{settings['demonstrations']} have a demonstration, {settings['prompts_per_step']} prompts per optimizer "
        f"step, {settings['num_generations']} rollouts per prompt at temperature 1. All weights are trained. SFT then "
        f"GRPO takes {settings['steps'] // 2} steps of SFT, and so does the warm-up at most; both have the learning "
        f"rate found for SFT. The search has seeds {', '.join(map(str, settings['search_seeds']))}, the report "
        f"{', '.join(map(str, settings['seeds']))}.\n\n"
        f"CPU hours on one thread: {hours:.2f}, of which {seconds['evaluation'] / 3600:.2f} evaluation. {versions}."
    )
