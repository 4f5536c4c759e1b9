"""Every suite is converted to problems with answers, whatever its columns, and every problem to a prompt."""

import json
from pathlib import Path

import pandas as pd
import pytest

from hpt_trl.data import benchmarks
from hpt_trl.data.benchmarks import SUITES, as_prompt, load_problems, load_suite, select_suites, to_problem

SHARED = Path(__file__).parents[3] / "shared" / "data"
LOCAL = [name for name in SUITES if name not in ("gpqa", "gsm8k")]

# A row of each suite in the columns it has on the Hub; the questions are made up.
HUB_ROWS = {
    "aime24": {"id": 60, "problem": "1+1?", "solution": "It is 2.", "answer": "2", "url": "", "year": "2024"},
    "amc23": {"id": 0, "question": "1+2?", "answer": 3.0, "url": ""},
    "minerva": {"question": "Mass?", "answer": "4.5e33"},
    "olympiadbench": {"context": None, "question": "Roots?", "final_answer": ["$1$", "$2$"], "modality": "Text-only"},
    "arc_challenge": {
        "question": "Ice is",
        "choices": {"text": ["hot", "cold"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "gpqa": {
        "Question": "Which?\n",
        "Correct Answer": "this one\n",
        "Incorrect Answer 1": "a",
        "Incorrect Answer 2": "b",
        "Incorrect Answer 3": "c",
    },
    "gsm8k": {"question": "2*3?", "answer": "It is <<2*3=6>>6.\n#### 6"},
}


def write(folder: Path, name: str, rows: list[dict]) -> None:
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aime24", {"problem": "1+1?", "answer": "2"}),
        ("amc23", {"problem": "1+2?", "answer": "3.0"}),
        ("minerva", {"problem": "Mass?", "answer": "4.5e33"}),
        ("olympiadbench", {"problem": "Roots?", "answer": "$1$,$2$"}),
        ("arc_challenge", {"problem": "Ice is\n\nA) hot\nB) cold", "answer": "B"}),
        ("gsm8k", {"problem": "2*3?", "answer": "6"}),
    ],
)
def test_the_columns_on_the_hub_are_converted(name, expected, tmp_path):
    write(tmp_path, name, [HUB_ROWS[name]])
    assert load_suite(name, str(tmp_path)) == [expected]


def test_gpqa_options_are_shuffled_by_the_question_alone():
    row = HUB_ROWS["gpqa"]
    first, again = to_problem(row, ""), to_problem(row, "")
    assert first == again
    options = dict(line.split(") ") for line in first["problem"].splitlines()[2:])
    assert sorted(options.values()) == ["a", "b", "c", "this one"]
    assert options[first["answer"]] == "this one"
    letters = [to_problem(row | {"Question": f"Which {i}?"}, "")["answer"] for i in range(200)]
    # A quarter each: 50, give or take four standard deviations of sqrt(200 * 3/16) = 6.1.
    assert all(25 < letters.count(letter) < 75 for letter in "ABCD")


@pytest.mark.parametrize(
    "row", [{"problem": "1+1?"}, {"problem": "1+1?", "answer": None}, {"problem": "", "answer": "2"}]
)
def test_a_row_without_problem_or_answer_is_an_error(row):
    with pytest.raises(ValueError, match=r"There is no (answer|problem) in row 7 of x"):
        to_problem(row, "row 7 of x")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_custom_data_is_read_in_every_format(tmp_path, suffix):
    frame = pd.DataFrame([{"problem": "1+1?", "answer": "2", "source": "x"}, {"problem": "1+2?", "answer": "3"}])
    path = tmp_path / f"custom.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=suffix == "jsonl")
    expected = [{"problem": "1+1?", "answer": "2"}, {"problem": "1+2?", "answer": "3"}]
    assert load_problems(str(path), "test") == expected


def test_prepared_data_keeps_its_prompts(tmp_path):
    write(tmp_path, "test", [{"prompt": "1+1=", "solution": "2", "demonstration": "2"}])
    assert load_problems(str(tmp_path), "test") == [{"prompt": "1+1=", "answer": "2"}]
    write(tmp_path, "other", [{"prompt": "1+1="}])
    with pytest.raises(ValueError, match="no column 'solution'"):
        load_problems(str(tmp_path / "other.jsonl"), "test")


def test_all_selects_the_suites_in_the_folder_and_lists_the_skipped_ones(tmp_path):
    write(tmp_path, "math500", [HUB_ROWS["aime24"]])
    write(tmp_path / "gsm8k", "test", [HUB_ROWS["gsm8k"]])
    assert select_suites(["all"], str(tmp_path)) == (
        ["math500", "gsm8k"],
        ["aime24", "aime25", "amc23", "minerva", "olympiadbench", "arc_challenge", "gpqa"],
    )
    assert select_suites(["all"], None) == (list(SUITES), [])
    assert select_suites(["gpqa", "aime24", "gpqa"], str(tmp_path)) == (["gpqa", "aime24"], [])
    assert load_suite("gsm8k", str(tmp_path)) == [{"problem": "2*3?", "answer": "6"}]
    with pytest.raises(ValueError, match=r"must be among aime24.*or 'all', got aime42"):
        select_suites(["aime42"], None)
    with pytest.raises(ValueError, match="has no benchmark file"):
        select_suites(["all"], str(tmp_path / "gsm8k"))


def test_an_unavailable_suite_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'gpqa' could not be loaded from the Hub as.*--benchmarks"):
        load_suite("gpqa", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"benchmark folder '.*nowhere' does not exist"):
        load_suite("aime24", str(tmp_path / "nowhere"))


def test_prompts_for_chat_and_base_models():
    row = {"problem": " 1+1?\n", "answer": "2"}
    question = {"role": "user", "content": "1+1?\nBox it."}
    assert as_prompt(row, "Box it.", None, chat=True) == [question]
    assert as_prompt(row, "Box it.", "Be brief.", chat=True) == [{"role": "system", "content": "Be brief."}, question]
    assert as_prompt(row, "Box it.", None, chat=False) == "1+1?\nBox it.\n"
    assert as_prompt(row, "", "Be brief.", chat=False) == "Be brief.\n\n1+1?\n"
    assert as_prompt({"prompt": "1+1="}, "Box it.", "Be brief.", chat=True) == "1+1="
    assert "letter" in SUITES["gpqa"].instruction
    assert all("\\boxed{}" in suite.instruction for suite in SUITES.values())


def test_samples_per_problem_are_those_of_the_paper():
    """arXiv 2509.04419, section 4.1: avg@32 on the three small benchmarks, avg@1 on the others."""
    assert {name for name, suite in SUITES.items() if suite.samples == 32} == {"aime24", "aime25", "amc23"}
    assert {suite.samples for suite in SUITES.values()} == {1, 32}
    assert [name for name, suite in SUITES.items() if suite.group == benchmarks.IN_DISTRIBUTION] == LOCAL[:6]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmark files of ../shared/data")
@pytest.mark.parametrize("name", [*LOCAL, "gsm8k"])
def test_the_local_files_are_complete(name):
    rows = load_suite(name, str(SHARED if name == "gsm8k" else SHARED / "benchmarks"))
    assert len(rows) == SUITES[name].size
    assert all(row["problem"].strip() and row["answer"].strip() for row in rows)
    if SUITES[name].instruction == benchmarks.CHOICE_INSTRUCTION:
        assert all(f"{row['answer']}) " in row["problem"] for row in rows)
