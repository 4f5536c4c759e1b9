"""Regimes of demonstrations, and the map of which method is best in which."""

import random
from dataclasses import replace

from transformers import AutoTokenizer

from hpt_trl.comparison.held_out_eval import MAX_COMPLETION_LENGTH, is_correct
from hpt_trl.comparison.regime_map import accuracy_table, best_table, distance_table, map_scores
from hpt_trl.comparison.regimes import REGIMES, foreign, regime_rows, sometimes_wrong, with_few_demonstrations
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.families import SUITES, training_rows


def test_regimes_differ_in_their_demonstrations_only():
    plain = training_rows(64, 1)
    for regime in REGIMES.values():
        rows = regime_rows(replace(regime, demonstrations=None), 64, 1)
        assert [row | {"demonstration": ""} for row in rows] == [row | {"demonstration": ""} for row in plain]
        wrong = [not is_correct(row["demonstration"], row["solution"]) for row in rows]
        assert 5 <= sum(wrong) <= 20 if regime.rewrite is sometimes_wrong else not any(wrong)
    few = regime_rows(REGIMES["exact_16"], 64, 1)
    assert few == with_few_demonstrations(plain, 16, 1)
    assert foreign(plain[0] | {"demonstration": "3+4=7\n7*2=14\n\\boxed{14}"}, random.Random(0)) == (
        "3 + 4 is 7; 7 * 2 is 14\n\\boxed{14}"
    )


def test_demonstrations_in_another_notation_fit_into_a_completion():
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    rows = regime_rows(replace(REGIMES["foreign_128"], demonstrations=None), 256, 1)
    assert max(len(tokenizer(row["demonstration"])["input_ids"]) for row in rows) < MAX_COMPLETION_LENGTH


def test_the_map_says_who_is_best_and_how_far_hpt_is():
    right = {"grpo": "00", "sft": "12", "hpt": "11", "warmup_hpt": "22"}
    runs = [
        {
            "run": {"stage": stage, "model": "m", "method": method, "seed": seed},
            "right": {"compute": dict.fromkeys(SUITES, counts if seed == 1 else counts[::-1])},
        }
        for stage in ("main", "map/exact_16")
        for method, counts in right.items()
        for seed in (1, 2)
        if stage == "main" or method != "grpo"
    ]
    settings = {"models": ["m"], "methods": list(right), "seeds": [1, 2], "demonstrations": 128, "test_samples": 2}
    summary = {"settings": settings, "runs": runs, "easy": dict.fromkeys(SUITES, "01")}
    scores = map_scores(summary, "compute")
    assert list(scores) == ["128 error-free", "16 error-free"]
    assert scores["16 error-free"].methods == ["sft", "grpo", "hpt", "warmup_hpt"]
    row = best_table(scores, "in").splitlines()[-1]
    assert row == "| 16 error-free | SFT warm-up, then HPT | 100.0 ± 0.0 | SFT | 75.0 ± 0.0 |"
    header, _, *rows = distance_table(scores, "in", None).splitlines()
    assert (
        header
        == "| demonstrations | HPT, minus the best without HPT | SFT warm-up, then HPT, minus the best without HPT |"
    )
    assert rows[-1] == "| 16 error-free | -25.0 ± 0.0 (p -) | 25.0 ± 0.0 (p -) |"
    assert distance_table(scores, "in", "grpo").splitlines()[-1].startswith("| 16 error-free | 50.0 ± 0.0 (p -) |")
    last = accuracy_table(scores, "in").splitlines()[-1]
    assert last == "| *furthest behind the best of a row* | 25.0 | 100.0 | 50.0 | **0.0** |"

    # Any of two samples: both problems for hpt ("11") and sft ("12"), none for grpo.
    assert map_scores(summary, "compute", k=2)["16 error-free"].by_seed("sft", "in") == [1.0, 1.0]
    assert map_scores(summary, "compute")["16 error-free"].by_seed("sft", "in") == [0.75, 0.75]
