"""Markdown report of the comparison on a real language model, made from its JSON only, so anyone can reproduce it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpt_trl.comparison.tables import markdown, title_of
from hpt_trl.evaluation.scores import Estimate, bootstrap_means, estimate

Results = Mapping[str, Any]

PARTS = {"all": "sampled", "gain": "sums", "loss": "differences", "price": "products"}
"""Kinds of problems and their column titles."""


def report_text(results: Results) -> str:
    """The complete report."""
    settings, samples = results["settings"], results["settings"]["test_samples"]
    parts = [
        f"# HPT and its baselines on {settings['model']}",
        _settings_text(results),
        f"Accuracy in %, with the 95% interval over the {settings['test_problems']} problems: greedy, and sampled at "
        f"temperature 1 with {samples} samples per problem, overall and by kind. Values are means over the seeds; the "
        "last column has the sampled accuracy of each seed.",
        score_table(results),
        "HPT minus each other method, in percentage points, with the 95% interval over problems; bold if the interval "
        "excludes 0. The intervals are not corrected for multiple comparisons and do not include the variation over "
        f"the {len(settings['seeds'])} seeds.",
        difference_table(results),
        "Cost per run. A forward pass counts 1 token pass per token, a backward pass 2; generation is included. "
        "Unsolved prompts are those that HPT's gate trained on their demonstrations.",
        cost_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def score_table(results: Results) -> str:
    """Accuracy of each method: greedy, sampled, and by kind of problem."""
    header = ["", "greedy", *PARTS.values(), "sampled, by seed"]
    rows = []
    for method in methods_of(results):
        cells = [_cell(estimate(greedy_shares(results, method), seed=0))]
        cells += [_cell(estimate(sampled_shares(results, method, part), seed=0)) for part in PARTS]
        by_seed = (_shares(run, "sampled", results["settings"]["test_samples"]) for run in _runs(results, method))
        cells.append(" / ".join(f"{100 * shares_P.mean():.1f}" for shares_P in by_seed))
        rows.append([title_of(method), *cells])
    return markdown(header, rows)


def difference_table(results: Results) -> str:
    """HPT minus each other method, paired by problem; bold if the interval excludes 0."""
    rows = []
    for method in methods_of(results):
        if method != "hpt" and "hpt" in methods_of(results):
            pairs = [greedy_shares(results, "hpt") - greedy_shares(results, method)]
            pairs += [sampled_shares(results, "hpt", part) - sampled_shares(results, method, part) for part in PARTS]
            rows.append([title_of(method), *map(_difference_cell, pairs)])
    return markdown(["HPT minus", "greedy", *PARTS.values()], rows)


def cost_table(results: Results) -> str:
    """Optimizer steps, token passes and CPU minutes per run, mean over the seeds."""
    rows = []
    for method in methods_of(results):
        runs = _runs(results, method)
        if method == "base":
            continue
        passes = np.mean([run["forwarded"] + 2 * run["backwarded"] for run in runs]) / 1e6
        minutes = np.mean([run["training_cpu_seconds"] for run in runs]) / 60
        solve_rates = np.array([rate for run in runs for rate in run["solve_rates"]])
        share = f"{(solve_rates == 0).mean():.0%}" if len(solve_rates) else "-"
        rows.append([title_of(method), str(results["settings"]["steps"]), f"{passes:.3f}", f"{minutes:.1f}", share])
    return markdown(["", "steps", "M token passes", "CPU minutes", "unsolved prompts"], rows)


def methods_of(results: Results) -> list[str]:
    """Methods in the order they were run."""
    return list(dict.fromkeys(run["method"] for run in results["runs"]))


def greedy_shares(results: Results, method: str) -> np.ndarray:
    """(P,) fraction of the seeds for which the greedy answer to each problem is correct."""
    return np.mean([_shares(run, "greedy", 1) for run in _runs(results, method)], axis=0)


def sampled_shares(results: Results, method: str, part: str = "all") -> np.ndarray:
    """(P,) fraction of correct samples of each problem of a part, mean over the seeds."""
    samples = results["settings"]["test_samples"]
    shares_P = np.mean([_shares(run, "sampled", samples) for run in _runs(results, method)], axis=0)
    return shares_P if part == "all" else shares_P[np.array(results["kinds"]) == part]


def _runs(results: Results, method: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["method"] == method]


def _shares(run: Mapping[str, Any], eval_name: str, samples: int) -> np.ndarray:
    return np.array(run["marks"][eval_name]["right"]) / samples


def _cell(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _difference_cell(difference_P: np.ndarray) -> str:
    low, high = np.percentile(bootstrap_means(difference_P, seed=0), [2.5, 97.5])
    text = f"{100 * difference_P.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _settings_text(results: Results) -> str:
    settings = results["settings"]
    practice = results["practice_cpu_seconds"]
    training, evaluation = (sum(run[f"{part}_cpu_seconds"] for run in results["runs"]) for part in ("training", "exam"))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Word problems with one calculation on two numbers. The base model of all methods is {settings['model']} "
        f"after {settings['practice_steps']} steps of SFT (practice), each on {settings['practice_prompts']} problems "
        f"with one-digit numbers, with learning rate {settings['practice_learning_rate']:g}. Every method then trains "
        f"on numbers of up to two digits, for {settings['steps']} optimizer steps of {settings['prompts_per_step']} "
        f"prompts, with {settings['num_generations']} rollouts per prompt at temperature 1. All weights are trained, "
        f"with learning rate {settings['learning_rate']:g} for every method. SFT then GRPO takes half of the steps "
        f"with each. There are {settings['training_problems']} training problems and {settings['test_problems']} "
        f"held-out problems; seeds {', '.join(map(str, settings['seeds']))}.\n\n"
        f"CPU hours on one thread: {practice / 3600:.2f} practice, {training / 3600:.2f} training, "
        f"{evaluation / 3600:.2f} evaluation. {versions}."
    )
