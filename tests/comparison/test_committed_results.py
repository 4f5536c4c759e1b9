"""The committed results of the comparison, and the numbers that README and guides take from them."""

import json
from pathlib import Path

import pytest

from hpt_trl.comparison.methods import MAIN_METHODS, METHODS
from hpt_trl.comparison.regime_map import accuracy_table, map_scores
from hpt_trl.comparison.report import tables_text
from hpt_trl.comparison.statistics import interval
from hpt_trl.comparison.summary import BUDGETS, Scores
from hpt_trl.comparison.tables import headline_table, p_text, significance_text, title_of
from hpt_trl.miniature.bases import MAIN_BASES
from hpt_trl.miniature.families import IN_DISTRIBUTION

RESULTS = Path(__file__).parents[2] / "notebooks" / "results" / "miniature"


@pytest.mark.parametrize("name", ["miniature", "few_demonstrations", "map"])
def test_the_committed_tables_are_made_from_the_committed_summary(name):
    folder = RESULTS.with_name(name)
    assert (folder / "report.md").read_text().startswith(tables_text(json.loads((folder / "summary.json").read_text())))


def test_the_numbers_of_the_readme_and_the_guide_are_those_of_the_main_table():
    summary = json.loads((RESULTS.with_name("few_demonstrations") / "summary.json").read_text())
    scores = {budget: Scores(summary, budget, ["qwen2-small"]) for budget in BUDGETS}
    assert all(len(each.seeds) == 5 and each.reference == "warmup_hpt" for each in scores.values())
    readme = (RESULTS.parents[2] / "README.md").read_text()
    assert headline_table(summary) in readme
    comparison = (RESULTS.parents[1] / "guides" / "comparison.md").read_text()
    for budget, each in scores.items():
        title = BUDGETS[budget].capitalize().replace("optimizer ", "")
        for line in significance_text(each).splitlines():
            assert f"- {title}: {line[2].lower()}{line[3:]}" in comparison

    def percent(budget, method):
        return f"{100 * scores[budget].interval(method, 'in').mean:.1f}%"

    guide = (RESULTS.parents[1] / "guides" / "algorithms.md").read_text().replace("\n", " ")
    methods = ("warmup_hpt", "hpt", "grpo", "sft_grpo")
    steps, compute = ([percent(budget, method) for method in methods] for budget in ("steps", "compute"))
    assert f"solves {steps[0]} in distribution at 60 optimizer steps, HPT without {steps[1]}, GRPO {steps[2]}" in guide
    assert f"at equal compute {compute[0]}, {compute[1]}, {compute[2]} and {compute[3]}" in guide
    text = readme.replace("\n", " ")
    assert f"HPT has {percent('compute', 'hpt')} in distribution at equal compute and GRPO {compute[2]}" in comparison
    ahead = [method for method, p in scores["compute"].p_values("in").items() if p < 0.05]
    assert [title_of(name) for name in ahead] == ["GRPO", "LUFFY", "SRFT", "CHORD-phi", "Dr. GRPO", "HPT"]
    assert "is significantly ahead of GRPO, LUFFY, SRFT, CHORD-phi, Dr. GRPO and HPT in distribution" in text
    assert f"rollouts alone after SFT until flat ({percent('compute', 'flat_grpo')})" in text
    runs = [entry for entry in summary["runs"] if entry["run"]["stage"] == "main"]

    def mean_steps(method):
        return round(sum(run["spent"]["compute"]["step"] for run in runs if run["run"]["method"] == method) / 5)

    warmed, alone, trl = map(mean_steps, ("warmup_hpt", "flat_grpo", "sft_grpo"))
    assert f"pays for {warmed} and {alone} steps on average, and for {trl} of SFT then GRPO" in text
    # Six log entries of five steps are the warm-up.
    after = [run["demonstration_share"][6:] for run in runs if run["run"]["method"] == "warmup_hpt"]
    assert f"{100 * sum(sum(each) / len(each) for each in after) / 5:.1f}% of the prompts train on their" in text


def ahead_of_sft_then_grpo(scores, method, column):
    """Points and p-value of each regime in which a method differs significantly from SFT then GRPO."""
    found = {}
    for title, regime in scores.items():
        p = regime.p_values(column, method)["sft_grpo"]
        if p < 0.05:
            found[title] = (
                f"{100 * interval(regime.differences('sft_grpo', column, method)).mean:.1f}",
                f"p {p_text(p)}",
            )
    return found


def test_the_numbers_of_the_readme_are_those_of_the_map():
    summary = json.loads((RESULTS.with_name("map") / "summary.json").read_text())
    scores = map_scores(summary, "compute")
    assert all(len(regime.seeds) == 5 for regime in scores.values())
    text = (RESULTS.parents[2] / "README.md").read_text()
    assert accuracy_table(scores, "in") in text
    foreign, complete = scores["128 in another notation"], scores["all error-free"]

    def percent(regime, method):
        return f"{100 * regime.interval(method, 'in').mean:.1f}%"

    text = " ".join(text.split())
    assert f"SFT then GRPO falls to {percent(foreign, 'sft_grpo')}, and so does HPT after a warm-up" in text
    assert f"Plain HPT keeps {percent(foreign, 'hpt')} (p {p_text(foreign.p_values('in', 'hpt')['sft_grpo'])})" in text
    assert f"SFT to the end, {percent(complete, 'sft')}." in text
    assert complete.p_values("out", "flat_hpt")["sft"] > 0.05
    rows = [accuracy_table(scores, column).splitlines()[-1].strip("| ").split(" | ")[2:] for column in ("in", "out")]
    behind_in, behind_out = ([float(cell.strip("*")) for cell in row] for row in rows)
    names = [method for method in METHODS if method in complete.methods][1:]
    assert f"at most {behind_in.pop(names.index('hpt'))} points behind the best method" in text
    assert f"one is {min(behind_in):.0f} to {max(behind_in):.0f} points behind in some row" in text
    own = behind_out.pop(names.index("hpt"))
    assert f"(out of distribution {own}, and {min(behind_out)} to {max(behind_out)})" in text


def test_what_the_readme_says_of_the_warm_up_is_what_the_map_shows():
    summary = json.loads((RESULTS.with_name("map") / "summary.json").read_text())
    scores, steps = map_scores(summary, "compute"), map_scores(summary, "steps")
    text = " ".join((RESULTS.parents[2] / "README.md").read_text().split())
    counts = []
    for column in ("in", "out"):
        behind = [
            max(regime.interval(name, column).mean for name in regime.methods)
            - regime.interval("flat_hpt", column).mean
            for regime in scores.values()
        ]
        counts += [sum(value == 0 for value in behind), sum(value < 0.01 for value in behind)]
    assert counts == [4, 6, 5, 7]
    assert (
        "best in four of eight rows and within a point of the best in six (out of distribution in five and seven)"
        in text
    )

    ahead = ahead_of_sft_then_grpo(scores, "flat_hpt", "in")
    # In another notation, both have less than 6%.
    assert list(ahead) == ["128 error-free", "all error-free", "128, one in five wrong", "128 in another notation"]
    for title, what in (
        ("all error-free", "with a demonstration for every prompt (by {} points, {})"),
        ("128 error-free", "with 128 error-free ones ({}, {})"),
        ("128, one in five wrong", "with 128 of which one in five is wrong ({}, {})"),
    ):
        assert what.format(*ahead[title]) in text
    ahead = ahead_of_sft_then_grpo(scores, "flat_hpt", "out")
    assert list(ahead) == ["all error-free", "all, one in five wrong"]
    assert "where all prompts have one ({}, {}), also if".format(*ahead["all error-free"]) in text
    assert "one in five is wrong ({}, {}).".format(*ahead["all, one in five wrong"]) in text

    any_of_four = map_scores(summary, "compute", k=4)
    for method, what in (
        ("flat_hpt", "as solved, it solves {} points more ({})"),
        ("hpt", "HPT solves {} points more than"),
    ):
        points, p = ahead_of_sft_then_grpo(any_of_four, method, "out")["all, one in five wrong"]
        assert what.format(points, p) in text
    assert f"than SFT then GRPO ({p})" in text

    assert list(ahead_of_sft_then_grpo(steps, "warmup_hpt", "in")) == ["128 in another notation"]
    lost = ahead_of_sft_then_grpo(steps, "flat_hpt", "in")["all, one in five wrong"]
    assert f"by {lost[0].removeprefix('-')} points ({lost[1]})" in text


def test_the_table_of_how_the_warm_up_was_chosen_is_made_from_the_committed_runs():
    runs = json.loads((RESULTS.with_name("warmup_choice") / "runs.json").read_text())
    decisions = (RESULTS.parents[1] / "guides" / "decisions.md").read_text()
    for demonstrations, what in {(run["prompts_with_demonstration"], run["what"]) for run in runs}:
        group = [run for run in runs if (run["prompts_with_demonstration"], run["what"]) == (demonstrations, what)]
        columns = ("steps_in", "steps_out", "compute_in", "compute_out")
        cells = [" / ".join(f"{run[column]:.1f}" for run in group) for column in columns]
        seeds = ", ".join(str(run["seed"]) for run in group)
        assert f"| {demonstrations} | {what} | {seeds} | {' | '.join(cells)} |" in decisions


def test_the_committed_summary_has_five_seeds_and_all_methods():
    summary = json.loads((RESULTS / "summary.json").read_text())
    for budget in BUDGETS:
        scores = Scores(summary, budget, list(MAIN_BASES))
        assert scores.methods == list(MAIN_METHODS)
        assert len(scores.seeds) >= 5
    # Every base model solves some problems of every family, but not most.
    for entry in summary["runs"]:
        for suite in IN_DISTRIBUTION if entry["rollouts"] else ():
            counts = entry["rollouts"][suite]
            assert 0.05 < sum(counts) / (len(counts) * summary["settings"]["test_samples"]) < 0.4, entry["run"]
