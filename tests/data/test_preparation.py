"""Preparation of rows: every demonstration is verified, and every refused row is counted with its reason."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpt_trl.data import INSTRUCTION, Preparation, PromptStyle, columns_of, prepare_rows
from hpt_trl.data.columns import converter, from_named
from hpt_trl.data.decontamination import Overlap
from hpt_trl.data.readers import read_rows
from hpt_trl.data.refusal_report import Reason
from hpt_trl.data.sources import resolve_model, resolve_rows
from tests.data import samples

BENCHMARK = "A farmer has seven cows and buys six more every year. How many cows does he have after six years?"


def math_row(problem, solution, answer="2"):
    return {"problem": problem, "solution": solution, "answer": answer}


# One row per reason that can occur in MATH-style data, and four rows that are kept: 14 rows.
MIXED = [
    math_row("1+1", "\\boxed{2}"),
    math_row("1+1", "again \\boxed{2}"),
    math_row("one and one", "\\boxed{3}"),
    math_row("2+0", "two"),
    math_row("0+2", "<think> \\boxed{2}"),
    math_row("3-1", "\\boxed{}"),
    math_row("4-2", "\\boxed{2}", ""),
    math_row(None, "\\boxed{2}"),
    math_row("5-3", 2),
    math_row(BENCHMARK, "\\boxed{2}"),
    math_row("6-4", None),
    math_row("7-5", "  "),
    math_row("one and one", "now right: \\boxed{2}"),
    math_row("8-6", None, "\\boxed{}"),
]


def prepare(rows, **options):
    preparation = Preparation(converter(rows[0]), **options)
    return list(preparation.run(rows)), preparation.report


def test_each_reason_is_counted():
    kept, report = prepare(MIXED, overlap=Overlap({"farm": [BENCHMARK]}))
    assert [row["prompt"][0]["content"].removesuffix("\n" + INSTRUCTION) for row in kept] == [
        "1+1",
        "6-4",  # no demonstration: trained with RL only
        "7-5",
        "one and one",  # the first such row was wrong, so the second is not a duplicate
    ]
    assert [row["demonstration"] for row in kept] == ["\\boxed{2}", "", "", "now right: \\boxed{2}"]
    assert report.refused == {
        Reason.DUPLICATE: 1,
        Reason.WRONG: 1,
        Reason.NO_BOX: 1,
        Reason.UNFINISHED: 1,
        Reason.UNREADABLE_ANSWER: 1,
        Reason.NO_SOLUTION: 1,
        Reason.NO_PROMPT: 1,
        Reason.MALFORMED: 1,
        Reason.CONTAMINATED: 1,
        Reason.UNREADABLE_SOLUTION: 1,
    }
    assert (report.read, report.kept, report.without_demonstration) == (14, 4, 2)
    assert report.contaminated == {"farm": 1}
    assert report.examples[Reason.WRONG][0].startswith("row 3: its answer is '3': {'prompt': 'one and one'")


def test_rows_without_a_demonstration_can_be_refused():
    kept, report = prepare(MIXED[10:13], missing_demonstration="refuse")
    assert len(kept) == 1
    assert report.refused == {Reason.NO_DEMONSTRATION: 2}
    with pytest.raises(ValueError, match="must be 'keep' or 'refuse', got 'drop'"):
        Preparation(dict, missing_demonstration="drop")


def test_three_examples_are_kept_and_excerpts_are_short():
    rows = [math_row(f"{number} {'long ' * 1000}", "\\boxed{3}") for number in range(5)]
    _, report = prepare(rows)
    assert report.refused[Reason.WRONG] == 5
    assert [len(example) < 330 for example in report.examples[Reason.WRONG]] == [True] * 3
    assert str(report).count("e.g.") == 3


def test_the_first_accepted_demonstration_is_used():
    rows = [{"ask": "6*7?", "tries": ["\\boxed{41}", "no box", "\\boxed{42}", "\\boxed{42.0}"], "gold": 42}]
    all_wrong = [{"ask": "6*8?", "tries": ["no box", "\\boxed{41}"], "gold": 48}]
    preparation = Preparation(from_named("ask", "tries", "gold"))
    assert [row["demonstration"] for row in preparation.run(rows + all_wrong)] == ["\\boxed{42}"]
    # The reported reason is that of the first candidate.
    assert preparation.report.refused == {Reason.NO_BOX: 1}


def test_solutions_from_the_demonstrations_box_are_reported():
    _, report = prepare(samples.CHAT)
    assert report.solution_from_box == 1
    assert "1 of the kept rows take their solution from their demonstration's box" in str(report)


def test_prompts_that_differ_in_whitespace_are_duplicates():
    rows = [
        {"prompt": "6*7=\r\n ?", "solution": "42"},
        {"prompt": "6*7= ?", "solution": "42"},
        {"prompt": [{"role": "user", "content": "6*7= ?"}], "solution": "42"},
    ]
    kept, report = prepare(rows)
    assert kept == [{"prompt": "6*7=\n ?", "demonstration": "", "solution": "42"}]
    # The third is a conversation in a column of texts.
    assert report.refused == {Reason.DUPLICATE: 1, Reason.MALFORMED: 1}
    assert len(prepare(rows, style=PromptStyle("text"))[0]) == 2


def test_other_columns_in_training_format_are_kept():
    assert prepare(samples.READY)[0] == samples.READY


def test_the_batch_size_does_not_matter(monkeypatch):
    in_one_batch = prepare(MIXED)
    monkeypatch.setattr("hpt_trl.data.preparation.BATCH_ROWS", 1)
    assert prepare(MIXED) == in_one_batch


ROWS = st.lists(
    st.one_of(
        st.sampled_from(MIXED),
        st.dictionaries(
            st.sampled_from(["problem", "solution", "answer"]),
            st.one_of(st.none(), st.text(max_size=20), st.integers(), st.floats(), st.lists(st.text(max_size=3))),
        ),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(rows=ROWS)
def test_counts_add_up_for_any_rows(rows):
    preparation = Preparation(converter(MIXED[0]), overlap=Overlap({"farm": [BENCHMARK]}))
    kept = list(preparation.run(rows))
    report = preparation.report
    assert report.read == len(rows)
    assert len(kept) == report.kept
    assert report.read == report.kept + report.refused.total()
    assert all(len(report.examples[reason]) == min(count, 3) for reason, count in report.refused.items())
    written = report.as_dict()
    assert sum(entry["rows"] for entry in written["refused"].values()) + written["kept"] == len(rows)
    prompts = Counter(json.dumps(row["prompt"]) for row in kept)
    assert not prompts or max(prompts.values()) == 1
    for row in kept:
        json.dumps(row, ensure_ascii=False).encode()


def test_rows_are_read_batch_by_batch():
    read = []
    rows = (read.append(number) or math_row(str(number), "\\boxed{2}") for number in range(10_000))
    next(Preparation(converter(MIXED[0])).run(rows))
    assert len(read) == 256


def test_columns_are_the_union_over_the_first_rows():
    columns, rows = columns_of(iter([{"a": 1}, {"b": 2, "a": 3}]))
    assert columns == ["a", "b"]
    assert list(rows) == [{"a": 1}, {"b": 2, "a": 3}]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["GSM8K", "LUFFY", "OPENR1", "CHAT"])
def test_a_known_dataset_is_converted_without_preparation(tmp_path, name, streaming):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(getattr(samples, name)[0]) + "\n")
    (row,) = resolve_rows(str(path), "train", streaming=streaming)
    (ready,), _ = prepare_rows(getattr(samples, name), getattr(samples, name)[0])
    assert row == ready


def test_an_unusable_row_is_an_error_that_suggests_prepare(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": "6*7?", "answer": "42"}) + "\n")
    with pytest.raises(ValueError, match=r"no '####' before .* Run `hpt-trl prepare`, which skips"):
        resolve_rows(str(path), "train")


def test_rows_with_a_prompt_are_not_converted(tmp_path):
    path = tmp_path / "train.jsonl"
    row = samples.READY[0] | {"messages": [{"role": "user", "content": "x"}]}
    path.write_text(json.dumps(row) + "\n")
    assert resolve_rows(str(path), "train")[0] == row


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_missing_model_path_is_an_error(name):
    with pytest.raises(FileNotFoundError, match=r"is not a folder with a config\.json"):
        resolve_model(name)


def test_the_miniature_and_hub_ids_resolve_to_models():
    assert (Path(resolve_model("miniature")) / "model.safetensors").exists()
    assert resolve_model("Qwen/Qwen2.5-Math-1.5B") == "Qwen/Qwen2.5-Math-1.5B"


def test_the_verifier_accepts_every_demonstration_of_gsm8k():
    folder = Path(os.environ.get("HPT_GSM8K", Path(__file__).parents[3] / "shared/data/gsm8k"))
    if not (folder / "train.jsonl").exists():
        pytest.skip("GSM8K is missing: set HPT_GSM8K to a folder with its train.jsonl")
    columns, rows = columns_of(read_rows(str(folder), "train"))
    kept, report = prepare_rows(rows, columns)
    assert (report.read, len(kept)) == (7473, 7473)
