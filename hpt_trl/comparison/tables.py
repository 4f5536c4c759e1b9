"""Summary -> Markdown tables."""

import math
from collections.abc import Mapping, Sequence

from hpt_trl.comparison.methods import ABLATIONS, METHODS
from hpt_trl.comparison.plan import size_of
from hpt_trl.comparison.statistics import Interval, interval
from hpt_trl.comparison.summary import AVERAGES, BUDGETS, Scores, Summary
from hpt_trl.miniature.families import IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, SUITES

_COLUMN_TITLES = {"in": "**in dist.**", "out": "**out of dist.**"}
AVERAGE_TITLES = {"in": "in distribution", "out": "out of distribution"}


def title_of(method: str) -> str:
    """A method's name in tables."""
    return (METHODS | ABLATIONS)[method].title


def cell(value: Interval) -> str:
    """A share in %, with half the width of its interval."""
    half = (value.high - value.low) / 2
    return f"{100 * value.mean:.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main_table(scores: Scores) -> str:
    """Rows methods, columns suites and averages, the best of each column bold."""
    columns = [*IN_DISTRIBUTION, "in", *OUT_OF_DISTRIBUTION, "out"]
    titles = [(SUITES | _COLUMN_TITLES)[column] for column in columns]
    return _best_in_bold(
        titles, {method: [scores.interval(method, column) for column in columns] for method in scores.methods}
    )


def headline_table(summary: Summary) -> str:
    """Averages in and out of distribution at either budget, mean over all models, the best of each column bold."""
    scores = {budget: Scores(summary, budget, summary["settings"]["models"]) for budget in BUDGETS}
    columns = [(budget, name) for budget in BUDGETS for name in AVERAGES]
    titles = [f"{BUDGETS[budget]}, {AVERAGE_TITLES[name]}" for budget, name in columns]
    methods = scores["steps"].methods
    return _best_in_bold(
        titles, {method: [scores[budget].interval(method, name) for budget, name in columns] for method in methods}
    )


def _best_in_bold(titles: Sequence[str], rows: Mapping[str, Sequence[Interval]]) -> str:
    """A table of methods, each with a value a column."""
    best = [max(rows, key=lambda method: rows[method][place].mean) for place in range(len(titles))]
    lines = []
    for method, values in rows.items():
        cells = [f"**{cell(value)}**" if best[place] == method else cell(value) for place, value in enumerate(values)]
        lines.append([title_of(method), *cells])
    return markdown(["", *titles], lines)


def parts_table(summary: Summary, budget: str, models: Sequence[str]) -> str:
    """What a method can do of what pretraining held, and of what it did not."""
    parts = {part: Scores(summary, budget, models, part=part) for part in ("easy", "hard")}
    columns = [(name, part) for name in AVERAGES for part in parts]
    header = ["", *(f"{_COLUMN_TITLES[name]} {part}" for name, part in columns)]
    rows = [
        [title_of(method), *(cell(parts[part].interval(method, name)) for name, part in columns)]
        for method in parts["easy"].methods
    ]
    return markdown(header, rows)


def difference_table(scores: Scores) -> str:
    """What each other method scores above or below HPT, with its P value."""
    header = ["HPT minus", *(f"{_COLUMN_TITLES[name]} | P" for name in AVERAGES)]
    header = [part for text in header for part in text.split(" | ")]
    p_values = {name: scores.p_values(name) for name in AVERAGES}
    rows = []
    for method in p_values["in"]:
        row = [title_of(method)]
        for name in AVERAGES:
            ours, theirs = scores.by_seed("hpt", name), scores.by_seed(method, name)
            mean = sum(a - b for a, b in zip(ours, theirs)) / len(ours)
            row += [f"{100 * mean:+.1f}", p_text(p_values[name][method])]
        rows.append(row)
    return markdown(header, rows)


def p_text(p: float) -> str:
    """A P value as it is usually written; a dash where there is none."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdicts(scores: Scores) -> str:
    """Whom HPT beats, who beats it, and what is open, one line an average."""
    if not any(method not in ("hpt", "base") for method in scores.methods):
        return "HPT was compared with no other method."
    lines = []
    for name, p_values in ((name, scores.p_values(name)) for name in AVERAGES):
        hpt = scores.interval("hpt", name).mean
        kinds: dict[str, list[str]] = {"ahead of": [], "behind": [], "not told apart from": []}
        for method, p in p_values.items():
            is_ahead = hpt > scores.interval(method, name).mean
            # NaN is below nothing: with one seed, nothing is told apart.
            kind = ("ahead of" if is_ahead else "behind") if p < 0.05 else "not told apart from"
            kinds[kind].append(title_of(method))
        text = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names)
        lines.append(f"- {'In' if name == 'in' else 'Out of'} distribution HPT is {text}.")
    return "\n".join(lines)


def base_table(summary: Summary) -> str:
    """What each base solves of every suite when sampled as rollouts are, at temperature 1."""
    samples = summary["settings"]["test_samples"]
    rows = []
    for model in summary["settings"]["models"]:
        found = [entry["rollouts"] for entry in summary["runs"] if entry["run"]["model"] == model and entry["rollouts"]]
        if found:
            shares = [[sum(right[suite]) / (len(right[suite]) * samples) for right in found] for suite in SUITES]
            rows.append([model, *(f"{100 * interval(each).mean:.1f}" for each in shares)])
    return markdown(["", *SUITES.values()], rows)


def cost_table(summary: Summary) -> str:
    """What each method spent on either budget, means over its runs: steps, token passes in millions, and the share of
    these that forwards with a gradient and their way back took; the rest is generation."""
    header = [
        "",
        *(f"{part}, {title}" for title in BUDGETS.values() for part in ("steps", "M passes", "of it training")),
    ]
    rows = []
    for method in summary["settings"]["methods"]:
        entries = [entry for entry in summary["runs"] if _is_main(entry, method) and entry["spent"]]
        if not entries:
            continue
        row = [title_of(method)]
        for budget in BUDGETS:
            spent = [entry["spent"][budget] for entry in entries]
            mean = {key: sum(each[key] for each in spent) / len(spent) for key in spent[0]}
            row += [
                f"{mean['step']:.0f}",
                f"{mean['compute'] / 1e6:.2f}",
                f"{3 * mean['backwarded'] / mean['compute']:.0%}",
            ]
        rows.append(row)
    return markdown(header, rows)


def search_table(summary: Summary) -> str:
    """Accuracy in distribution of every learning rate that was tried, by width of the model; the one taken in bold."""
    scores: dict[tuple[str, str], dict[float, list[float]]] = {}
    for entry in summary["runs"]:
        run = entry["run"]
        if run["stage"] == "search":
            by_rate = scores.setdefault((run["method"], size_of(run["model"])), {})
            last = [point["in"] for point in entry["curve"][-2:]]
            by_rate.setdefault(run["learning_rate"], []).append(sum(last) / len(last))
    rates = sorted({rate for by_rate in scores.values() for rate in by_rate})
    rows = []
    for (method, size), by_rate in scores.items():
        taken = summary["learning_rates"][f"{size} {method}"]
        cells = {rate: f"{100 * interval(found).mean:.1f}" for rate, found in by_rate.items()}
        cells[taken] = f"**{cells[taken]}**"
        rows.append([title_of(method), size, *(cells.get(rate, "-") for rate in rates)])
    return markdown(["", "width", *(f"{rate:g}" for rate in rates)], rows)


def _is_main(entry: Summary, method: str) -> bool:
    return entry["run"]["stage"] == "main" and entry["run"]["method"] == method
