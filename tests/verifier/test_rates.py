"""Generated answers: respellings are accepted; neighbours, and what policies do to be judged right, are refused."""

import json
import re
from pathlib import Path

import pytest
from math_verify import parse, verify

from hpt_trl.verifier.answers.leniency import LENIENCIES
from hpt_trl.verifier.verdicts import judge
from tests.verifier.generators import FAMILIES, neighbours, respellings
from tests.verifier.generators.hostile import hostile
from tests.verifier.measure_grader.rates import mistakes

ROOT = Path(__file__).parents[2]
TOTAL = 2_000


@pytest.mark.parametrize("generate", [respellings, neighbours, hostile], ids=lambda generate: generate.__name__)
def test_no_verdict_on_generated_answers_is_mistaken(generate):
    # 10,000 of each: python -m tests.verifier.measure_grader.rates; notebooks/results/grader/rates.json
    assert mistakes(list(generate(TOTAL, seed=1))) == []


def test_the_generators_draw_the_same_cases_for_the_same_seed_and_others_for_another():
    for generate in (respellings, neighbours, hostile):
        assert list(generate(200, 3)) == list(generate(200, 3))
        assert list(generate(200, 3)) != list(generate(200, 4))


def test_every_family_has_respellings_and_neighbours():
    assert {case.kind for case in respellings(100)} == {family.__name__ for family in FAMILIES}
    assert {case.kind for case in neighbours(100)} == {family.__name__ for family in FAMILIES}
    assert not any(case.expected for case in hostile(500))


def test_the_committed_rates():
    figures = json.loads((ROOT / "notebooks" / "results" / "grader" / "rates.json").read_text())
    for name in ("respellings", "neighbours", "hostile"):
        assert figures[name]["cases"] == 10_000
        assert figures[name]["ours_mistaken"] == 0
        assert figures[name]["math_verify_mistaken"] > 0


@pytest.mark.parametrize("leniency", LENIENCIES, ids=lambda leniency: leniency.name)
def test_each_leniency_accepts_its_example_and_refuses_its_counterexample(leniency):
    boxes = [rf"\boxed{{{text}}}" for text in (leniency.accepted, leniency.refused)]
    assert judge(boxes, [leniency.gold] * 2) == ["right", "wrong"]


def test_the_guide_shows_the_table_of_leniencies():
    guide = (ROOT / "notebooks" / "guides" / "data.md").read_text(encoding="utf-8")
    for leniency in LENIENCIES:
        examples = (leniency.gold, leniency.accepted, leniency.refused)
        row = " | ".join([leniency.name, leniency.rule, *(f"`{text}`" for text in examples)])
        assert f"| {row} |" in guide


def test_the_guide_is_right_about_the_differences_from_math_verify():
    guide = (ROOT / "notebooks" / "guides" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (right|wrong) \| (.+?) \| .+ \|$", guide, re.MULTILINE)
    assert len(rows) >= 12
    for answer, gold, math_verify, ours in rows:
        completion = answer if "boxed" in answer else rf"\boxed{{{answer}}}"
        assert judge([completion], [gold]) == [ours], answer
        assert verify(parse(rf"\boxed{{{gold}}}"), parse(completion)) == (math_verify == "right"), answer
