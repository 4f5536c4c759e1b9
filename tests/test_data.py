import json
import os
from pathlib import Path

import pytest

from hpt_trl.data import INSTRUCTION, converter, from_gsm8k, load_rows, prepare_rows
from hpt_trl.sources import resolve_model, resolve_rows

GSM8K_ROW = {
    "question": "Tina buys 3 pens for $400 each. What does she pay?",
    "answer": "She pays 3*400=$<<3*400=1200>>1200.\n#### 1,200",
}


def test_gsm8k_is_stripped_of_marks_and_boxed():
    assert from_gsm8k(GSM8K_ROW) == {
        "prompt": [{"role": "user", "content": f"Tina buys 3 pens for $400 each. What does she pay?\n{INSTRUCTION}"}],
        "demonstration": "She pays 3*400=$1200.\nThe final answer is \\boxed{1200}.",
        "solution": "1200",
    }


def test_refused_rows_are_counted_with_reason_and_example():
    rows = [
        GSM8K_ROW,
        {"question": "?", "answer": "no final answer"},
        {"question": "?", "answer": "#### "},
        {"question": "?", "answer": None},
    ]
    kept, report = prepare_rows(rows, rows[0])
    assert (report.came, report.kept, len(kept)) == (4, 1, 1)
    assert report.refused == {
        "no '####' before a final answer": 1,
        "the verifier cannot read the solution": 1,
        "nothing in answer": 1,
    }
    assert "no final answer" in str(report)


def test_a_wrong_demonstration_is_refused_and_a_missing_one_kept():
    rows = [
        {"problem": "1+1", "solution": r"\boxed{3}", "answer": "2"},
        {"problem": "1+1", "solution": "", "answer": "2"},
    ]
    kept, report = prepare_rows(rows, rows[0])
    assert [row["demonstration"] for row in kept] == [""]
    assert report.refused == {"the verifier rejects the demonstration's answer": 1}


def test_a_demonstration_may_be_a_message():
    message = {"role": "assistant", "content": r"\boxed{2}"}
    kept, _ = prepare_rows([{"prompt": "1+1", "demonstration": message, "solution": "2"}], ["prompt", "solution"])
    assert kept[0]["demonstration"] == message


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match=r"has the columns \['a', 'b'\]"):
        converter(["b", "a"])


def test_rows_are_found_by_file_and_by_folder(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(GSM8K_ROW) + "\n")
    assert load_rows(str(path), "test")[0] == GSM8K_ROW
    assert load_rows(str(tmp_path), "test")[0] == GSM8K_ROW
    assert resolve_rows(str(path), "test")[0]["solution"] == "1200"
    with pytest.raises(ValueError, match="Split 'train' was asked for, but the data file"):
        load_rows(str(path), "train")
    with pytest.raises(FileNotFoundError, match=r"does not exist\. Give a"):
        load_rows(str(tmp_path / "nowhere.jsonl"))


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": ')
    with pytest.raises(ValueError, match=r"broken.jsonl' is not readable as jsonl"):
        load_rows(str(path))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c"])
def test_a_missing_model_path_is_refused(name):
    with pytest.raises(FileNotFoundError, match=r"is not a folder with a config\.json"):
        resolve_model(name)


def test_the_miniature_and_hub_ids_are_models():
    assert (Path(resolve_model("miniature")) / "model.safetensors").exists()
    assert resolve_model("Qwen/Qwen2.5-Math-1.5B") == "Qwen/Qwen2.5-Math-1.5B"


def test_the_verifier_accepts_every_demonstration_of_gsm8k():
    folder = Path(os.environ.get("HPT_GSM8K", Path(__file__).parents[2] / "shared/data/gsm8k"))
    if not (folder / "train.jsonl").exists():
        pytest.skip("GSM8K is not here: point HPT_GSM8K at a folder with its train.jsonl")
    rows = load_rows(str(folder), "train")
    kept, report = prepare_rows(rows, rows.column_names)
    assert (report.came, len(kept)) == (7473, 7473)
