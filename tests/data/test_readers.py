"""Rows from files and folders; an error names the line that cannot be read."""

import json
import math

import pyarrow
import pyarrow.parquet
import pytest

from hpt_trl.data.readers import load_rows, read_file, read_rows
from tests.data import samples

ROW = {"problem": "a", "answer": "1"}


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_jsonl_keeps_the_type_of_each_value(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"answer": 7},
        {"answer": "x = 7"},
        {"answer": [1, None], "more": {"a": "½\u2028"}},
        {"answer": "2020-01-01"},
    ]
    path.write_bytes(b"\xef\xbb\xbf" + lines(*rows).replace("\n", "\r\n\r\n").encode())
    assert list(read_file(path)) == rows


def test_a_json_list_and_a_huge_row_are_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ROW, ROW | {"solution": "x" * 12_000_000}]))
    assert [len(row.get("solution", "")) for row in read_file(path)] == [0, 12_000_000]
    path.write_text(lines(ROW, ROW))
    assert list(read_file(path)) == [ROW, ROW]


def test_csv_is_read_as_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'problem,answer,solution\r\n"two\r\nlines",007,\r\nb,NA,"%s"\r\nc\r\n' % (b"y" * 200_000))
    rows = list(read_file(path))
    assert [row["answer"] for row in rows] == ["007", "NA", None]  # pandas would give 7.0, nan and nan
    assert rows[0]["problem"] == "two\r\nlines"
    assert (rows[0]["solution"], len(rows[1]["solution"])) == ("", 200_000)


def test_parquet_keeps_nested_lists(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(samples.LUFFY + samples.LUFFY), path)
    assert list(read_file(path)) == samples.LUFFY * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": ', r"a\.jsonl, line 3, is not readable as JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"a\.jsonl, line 2, is not readable as JSON: 'utf-8'"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl, line 2: a row must be an object, got list"),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 200_000, r"a\.jsonl, line 2, is not readable as JSON"),
        ("a.json", b"[1]", r"a\.json, entry 1: a row must be an object, got int"),
        ("a.json", b'[{"a": 1}', r"a\.json is not readable as JSON"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a\.csv, near line 3, is not readable as CSV: it has more fields than the 2"),
        ("a.csv", b'a,b\n1,"2\n', r"a\.csv, near line 1, is not readable as CSV"),
        ("a.csv", b"a,b\n1,\xff\n", r"a\.csv, near line \d, is not readable as CSV"),
        ("a.parquet", b"not parquet at all", r"a\.parquet is not readable as Parquet"),
    ],
)
def test_errors_name_the_broken_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_file(path))


def test_errors_in_training_data_name_the_line_too(tmp_path):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": ')
    with pytest.raises(ValueError, match=r"broken\.jsonl, line 2, is not readable as JSON"):
        load_rows(str(path))


def test_data_is_given_as_a_file_or_a_folder(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(lines(ROW))
    for read in (load_rows, read_rows):
        assert next(iter(read(str(path), "test"))) == ROW
        assert next(iter(read(str(tmp_path), "test"))) == ROW
        with pytest.raises(ValueError, match="The split is 'train', but the data file"):
            read(str(path), "train")
        with pytest.raises(
            FileNotFoundError, match=r"has no data for the split 'train' \(such as train\.jsonl\), only \['test"
        ):
            read(str(tmp_path), "train")
        with pytest.raises(FileNotFoundError, match=r"does not exist\. Give a"):
            read(str(tmp_path / "nowhere.jsonl"))


def test_the_shards_of_a_hub_snapshot_are_read_in_order(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / ".cache").mkdir()
    for shard in (1, 0):
        table = pyarrow.Table.from_pylist([{"problem": str(shard), "answer": "1"}])
        pyarrow.parquet.write_table(table, tmp_path / "data" / f"train-0000{shard}-of-00002.parquet")
        pyarrow.parquet.write_table(table, tmp_path / "data" / f"test-0000{shard}-of-00002.parquet")
    (tmp_path / ".cache" / "train.jsonl").write_text("broken")
    assert [row["problem"] for row in read_rows(str(tmp_path))] == ["0", "1"]
    assert load_rows(str(tmp_path))["problem"] == ["0", "1"]


def test_files_of_any_name_form_the_train_split_and_reports_are_ignored(tmp_path):
    (tmp_path / "b.jsonl").write_text(lines(ROW))
    (tmp_path / "a.jsonl").write_text(lines(ROW, ROW))
    (tmp_path / "a.jsonl.report.json").write_text("{}")
    assert len(list(read_rows(str(tmp_path)))) == 3
    (tmp_path / "c.csv").write_text("problem,answer\na,1\n")
    with pytest.raises(ValueError, match="files of several formats"):
        read_rows(str(tmp_path))


def test_an_empty_file_and_an_unknown_suffix_are_errors(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match="is empty: it has no rows"):
        read_rows(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"must have one of the suffixes \.json"):
        read_rows(str(tmp_path / "a.xlsx"))


def test_nan_stays_nan(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"answer": [1.0, math.nan, None]}), path)
    assert [str(row["answer"]) for row in read_file(path)] == ["1.0", "nan", "None"]
