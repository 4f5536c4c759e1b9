"""`hpt-trl quickstart`: HPT solves what GRPO does not, and everything it writes holds the evaluation just made."""

import json

import pytest

from hpt_trl.commands.quickstart import METHODS, QuickstartArguments, accuracy_table, main, quickstart


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One seed, three quarters of the steps."""
    output = tmp_path_factory.mktemp("quick")
    main(["--output_dir", str(output), "--seeds", "1", "--max_steps", "45", "--problems", "200"])
    return output


def test_hpt_is_ahead_of_grpo_and_of_the_base_model(folder):
    scores = json.loads((folder / "quickstart.json").read_text())["scores"]
    before, grpo, hpt = (scores[name][0] for name in ("before", "GRPO", "HPT"))
    assert list(scores) == ["before", *METHODS]
    assert hpt["low"] > grpo["high"] + 0.1
    assert hpt["low"] > before["high"] + 0.1
    assert all(0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1 for each in (before, grpo, hpt))


def test_both_methods_train_on_the_same_prompts_with_the_same_options(folder):
    runs = [json.loads((folder / f"{name}_seed0" / "_record" / "run.json").read_text()) for name in ("grpo", "hpt")]
    configs = [run["config"] for run in runs]
    differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert {"gate", "output_dir"} <= differing <= {"gate", "output_dir", "logging_dir", "run_name"}


def test_model_card_and_report_hold_the_evaluation(folder):
    score = json.loads((folder / "quickstart.json").read_text())["scores"]["HPT"][0]
    card = (folder / "hpt_seed0" / "README.md").read_text()
    accuracy, low, high = (f"{100 * score[name]:.1f}%" for name in ("accuracy", "low", "high"))
    assert f"| miniature/digit_sums (first 200 problems) | avg@1 | {accuracy} | {low} to {high} |" in card
    assert "hpt-trl train --config hpt_trl:quickstart --output_dir" in card
    assert f"{100 * score['accuracy']:.1f}%" in (folder / "_report" / "report.html").read_text()
    assert (folder / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_replaces_the_first(folder, capsys):
    before = (folder / "quickstart.json").read_text()
    quickstart(QuickstartArguments(str(folder), seeds=1, max_steps=1, problems=10))
    assert json.loads((folder / "quickstart.json").read_text())["problems"] == 10
    assert "Run 2 of 2: HPT, seed 0, 1 steps." in capsys.readouterr().out
    (folder / "quickstart.json").write_text(before)


def test_the_mean_is_over_seeds():
    # Mean 0.5; t(0.975, 2) = 4.303 times the standard error 0.1 / sqrt(3): 0.5 +- 0.248.
    scores = {"HPT": [{"accuracy": value, "low": 0.0, "high": 1.0} for value in (0.4, 0.5, 0.6)]}
    table = accuracy_table(scores, problems=10)
    assert list(table.columns[0].cells) == ["0", "1", "2", "mean"]
    assert list(table.columns[1].cells)[-1] == "50.0% (25.2% to 74.8%)"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--max_steps", "0"], "max_steps must be at least 1, got 0"),
        (["--problems", "741"], "problems must be from 1 to 740, got 741"),
        (["--output_dir", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_invalid_options_are_rejected_before_any_work(capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        main(flags)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
