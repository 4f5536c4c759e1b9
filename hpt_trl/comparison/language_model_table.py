"""Results of the comparison on a real language model -> Markdown; from the JSON alone, so anyone can make it again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpt_trl.comparison.tables import markdown, title_of
from hpt_trl.evaluation.scores import Estimate, bootstrap_means, estimate

Results = Mapping[str, Any]

PARTS = {"all": "sampled", "gain": "sums", "loss": "differences", "price": "products"}
"""Kinds of problems, and the titles of their columns."""


def report_text(results: Results) -> str:
    """The whole report."""
    settings, samples = results["settings"], results["settings"]["test_samples"]
    parts = [
        f"# HPT and its baselines on {settings['model']}",
        _settings_text(results),
        f"Solved, in %, with the 95 % interval over the {settings['test_problems']} problems: greedy; sampled at "
        f"temperature 1, {samples} samples a problem, all and by kind. Mean over the seeds; each seed's score on all "
        "samples stands last.",
        score_table(results),
        "HPT minus each other method, in percentage points, with the 95 % interval over problems; bold where it leaves "
        "0 out. It is corrected for no number of comparisons, and knows nothing of other seeds than these "
        f"{len(settings['seeds'])}.",
        difference_table(results),
        "What a run took. A pass is a token forwarded, 2 more its way back, generation included. Unsolved prompts are "
        "those that HPT's gate sent to their demonstrations.",
        cost_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def score_table(results: Results) -> str:
    """Rows methods; columns exams and parts of the problems."""
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
    """HPT minus each other method, paired by problem; a difference whose interval leaves 0 out is bold."""
    rows = []
    for method in methods_of(results):
        if method != "hpt" and "hpt" in methods_of(results):
            pairs = [greedy_shares(results, "hpt") - greedy_shares(results, method)]
            pairs += [sampled_shares(results, "hpt", part) - sampled_shares(results, method, part) for part in PARTS]
            rows.append([title_of(method), *map(_difference_cell, pairs)])
    return markdown(["HPT minus", "greedy", *PARTS.values()], rows)


def cost_table(results: Results) -> str:
    """Optimizer steps, token passes and CPU minutes of a run, means over the seeds."""
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
    return markdown(["", "steps", "M passes", "CPU minutes", "unsolved prompts"], rows)


def methods_of(results: Results) -> list[str]:
    """In the order they were run."""
    return list(dict.fromkeys(run["method"] for run in results["runs"]))


def greedy_shares(results: Results, method: str) -> np.ndarray:
    """(P,) share of the seeds with which each problem was solved by the likeliest answer."""
    return np.mean([_shares(run, "greedy", 1) for run in _runs(results, method)], axis=0)


def sampled_shares(results: Results, method: str, part: str = "all") -> np.ndarray:
    """(P,) share of right samples of each problem of a part, mean over the seeds."""
    samples = results["settings"]["test_samples"]
    shares_P = np.mean([_shares(run, "sampled", samples) for run in _runs(results, method)], axis=0)
    return shares_P if part == "all" else shares_P[np.array(results["kinds"]) == part]


def _runs(results: Results, method: str) -> list[dict[str, Any]]:
    return [run for run in results["runs"] if run["method"] == method]


def _shares(run: Mapping[str, Any], exam: str, samples: int) -> np.ndarray:
    return np.array(run["marks"][exam]["right"]) / samples


def _cell(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _difference_cell(difference_P: np.ndarray) -> str:
    low, high = np.percentile(bootstrap_means(difference_P, seed=0), [2.5, 97.5])
    text = f"{100 * difference_P.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def _settings_text(results: Results) -> str:
    settings = results["settings"]
    runs = results["runs"]
    training, exams = (sum(run[f"{part}_cpu_seconds"] for run in runs) for part in ("training", "exam"))
    practice = results["practice_cpu_seconds"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Two numbers in a short story. The base of all methods is {settings['model']} after "
        f"{settings['practice_steps']} steps of SFT on {settings['practice_prompts']} problems each with single digits "
        f"(learning rate {settings['practice_learning_rate']:g}). Then, on numbers of up to two digits, "
        f"{settings['steps']} optimizer steps of {settings['prompts_per_step']} prompts, {settings['num_generations']} "
        "rollouts each at temperature 1, all weights trained, learning rate "
        f"{settings['learning_rate']:g} for every method; "
        f"{settings['training_problems']} training problems; seeds "
        f"{', '.join(map(str, settings['seeds']))}. SFT then GRPO is half of the steps each. Held out: "
        f"{settings['test_problems']} questions.\n\n"
        f"CPU hours, one thread: {practice / 3600:.2f} practice, {training / 3600:.2f} training, {exams / 3600:.2f} "
        f"exams. {versions}."
    )
