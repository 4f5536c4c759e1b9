import json
import math

import pytest

from hpt_trl.evaluate import EvaluateArguments, evaluate, main, score, wilson_interval


def test_wilson_interval_by_hand():
    # n = 100, p = 0.1, z = 1.96: z^2 = 3.8416.
    # Centre (0.1 + 3.8416/200) / 1.038416, spread 1.96 sqrt(0.09/100 + 3.8416/40000) / 1.038416.
    centre, spread = 0.119208 / 1.038416, 1.96 * math.sqrt(0.0009 + 0.00009604) / 1.038416
    assert wilson_interval(0.1, 100) == pytest.approx((centre - spread, centre + spread))
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(1.0, 10)[1] == 1.0


def test_score_averages_samples_and_counts_problems():
    result = score(["a", "b", "c", "d"], [1.0, 0.0, None, 1.0], samples=2)
    assert (result.accuracy, result.problems) == (0.5, 2)
    assert result.verdicts == [[1.0, 0.0], [None, 1.0]]
    assert result.completions == [["a", "b"], ["c", "d"]]


def test_sorting_by_length_keeps_each_completion_with_its_problem():
    """Greedy decoding does not depend on the order, the batch, or the padding beside it."""
    settings = {"limit": 12, "temperature": 0.0, "max_new_tokens": 12}
    one_by_one = evaluate(EvaluateArguments("miniature", "miniature", batch_size=1, **settings))
    together = evaluate(EvaluateArguments("miniature", "miniature", batch_size=5, **settings))
    assert together.completions == one_by_one.completions
    assert len({text for row in together.completions for text in row}) > 1


def test_evaluate_writes_settings_completions_and_verdicts(tmp_path, capsys):
    output = tmp_path / "scores.json"
    flags = ["--model", "miniature", "--data", "miniature", "--limit", "4", "--samples", "2", "--max_new_tokens", "8"]
    main([*flags, "--output", str(output)])
    written = json.loads(output.read_text())
    assert written["settings"]["samples"] == 2
    assert [len(row) for row in written["completions"]] == [2] * 4
    assert "miniature" in capsys.readouterr().out
