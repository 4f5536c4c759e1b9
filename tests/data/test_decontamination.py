"""Prompts that repeat a benchmark problem are found; phrases that many problems share do not count."""

import json
import os
from pathlib import Path

import pytest

from hpt_trl.data.columns import from_gsm8k
from hpt_trl.data.decontamination import Hit, Overlap, words
from hpt_trl.data.decontamination_problems import benchmark_problems
from hpt_trl.data.prompts import question_prompt, question_text
from hpt_trl.data.readers import read_file

ALPHABET = "a b c d e f g h i j k l m n o p q r s t"


def test_words_ignore_the_typesetting_of_formulas():
    formula = "Find $\\left(\\dfrac{1}{2}\\right)^x$,\nX_1 = 5\\,\\text{cm}"
    assert words(formula) == words("FIND (\\frac{1} 2)^{x}; x_1 \\quad= \uff15 cm")
    assert words("leftover texture dfractal") == ["leftover", "texture", "dfractal"]


def test_the_share_is_the_covered_fraction_of_the_problem():
    overlap = Overlap({"letters": [ALPHABET]})  # 20 words
    # 11 common words are four 8-grams, which cover 11 of 20 words: 55%. 10 words are exactly half, which is not enough.
    assert [hit.share for hit in overlap.hits("x " + " ".join(ALPHABET.split()[:11]) + " y")] == [0.55]
    assert overlap.hits(" ".join(ALPHABET.split()[:10])) == []
    # Sequences of seven words have no 8-gram.
    assert overlap.hits(" x ".join(" ".join(ALPHABET.split()[start : start + 7]) for start in (0, 7, 13))) == []
    # The length of the prompt does not matter.
    assert overlap.hits("word " * 500 + ALPHABET)[0].share == 1.0


def test_a_phrase_that_occurs_in_ten_problems_does_not_count():
    phrase = "where m and n are relatively prime positive integers find m plus n"
    problems = [f"{phrase} case {number}" for number in range(10)]
    # In nine problems the phrase counts: 13 of 15 words. In ten it does not, but a repeated problem is still found.
    assert Overlap({"few": problems[:9]}).hits(f"Something else, {phrase}")[0].share == 13 / 15
    assert Overlap({"many": problems}).hits(f"Something else, {phrase}") == []
    assert [hit.number for hit in Overlap({"many": problems}).hits(problems[3])] == [4]


def test_a_short_problem_must_match_a_line():
    overlap = Overlap({"short": ["Simplify $\\sqrt{242}$."], "other": ["What is 1+1?"]})
    assert [hit.benchmark for hit in overlap.hits(question_text(question_prompt("Simplify $\\sqrt{242}$")))] == [
        "short"
    ]
    assert overlap.hits("Simplify $\\sqrt{242} + \\sqrt{2}$.") == []
    assert overlap.hits("") == []


def test_each_benchmark_has_one_hit_the_best():
    half = " ".join(ALPHABET.split()[:12])
    overlap = Overlap({"b": [half + " z" * 3, half], "a": [half]})
    assert overlap.hits(half) == [Hit("a", 1, 1.0), Hit("b", 2, 1.0)]


def write(path, *rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_benchmarks_are_named_after_their_files(tmp_path):
    suite = tmp_path / "suites"
    write(suite / "aime24.jsonl", {"problem": "a", "answer": "1"}, {"problem": "b", "answer": "2"})
    write(suite / "arc_challenge" / "test.jsonl", {"problem": "Which?\n\nA) This.\nB) That.", "answer": "A"})
    write(suite / "old" / "train.jsonl", {"problem": "no benchmark"})
    test = write(tmp_path / "gsm8k" / "test.jsonl", {"question": "c", "answer": "#### 3"})
    benchmarks = benchmark_problems([str(tmp_path / "suites"), test])
    assert benchmarks.problems == {"aime24": ["a", "b"], "arc_challenge": ["Which?"], "gsm8k": ["c"]}
    assert "gpqa" in benchmarks.missing
    assert not {"aime24", "gsm8k"} & set(benchmarks.missing)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"answer": "1"}],
            r"needs a text 'problem' or 'question' in every row, got a row with the columns \['answer'\]",
        ),
        ([], "no problems"),
    ],
)
def test_a_benchmark_without_problems_is_an_error(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        benchmark_problems([write(tmp_path / "a.jsonl", *rows)])


def test_missing_benchmarks_are_errors(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="There is no benchmark at"):
        benchmark_problems([str(tmp_path)])
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError,
        match=r"could not be loaded for decontamination: .* Pass a folder .* or skip the check with --decontam",
    ):
        benchmark_problems(None)


@pytest.fixture(scope="module")
def shared():
    folder = Path(os.environ.get("HPT_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))
    if not (folder / "benchmarks").is_dir():
        pytest.skip("the benchmarks are missing: set HPT_SHARED_DATA to a folder with benchmarks/ and gsm8k/")
    return folder


@pytest.fixture(scope="module")
def benchmarks(shared):
    return benchmark_problems([str(shared / "benchmarks"), str(shared / "gsm8k" / "test.jsonl")]).problems


def restyled(problem):
    text = problem.replace("\\frac", "\\dfrac").replace("$", "").replace("\\left", "").replace("\\right", "")
    return f"Problem 3.\n{text}"


@pytest.mark.parametrize("format_problem", [lambda problem: question_text(question_prompt(problem)), restyled])
def test_every_problem_is_found_in_its_own_benchmark_only(benchmarks, format_problem):
    overlap = Overlap(benchmarks)
    problems = [(name, problem) for name, texts in benchmarks.items() for problem in texts]
    correct = sum(
        [hit.benchmark for hit in overlap.hits(format_problem(problem))] == [name] for name, problem in problems
    )
    assert (correct, len(problems)) == (4037, 4037)


def test_three_rows_of_gsm8k_repeat_a_test_problem_with_other_numbers(shared, benchmarks):
    overlap = Overlap(benchmarks)
    rows = list(read_file(shared / "gsm8k" / "train.jsonl"))
    hits = {number: overlap.hits(str(from_gsm8k(row).prompt)) for number, row in enumerate(rows, 1)}
    benchmarks_of_rows = {number: [hit.benchmark for hit in row_hits] for number, row_hits in hits.items() if row_hits}
    # Row 21 is about stamps; the other two are about additional hours of travel.
    assert benchmarks_of_rows == {21: ["gsm8k"], 1315: ["gsm8k"], 5163: ["gsm8k"]}
