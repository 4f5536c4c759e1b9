"""Rows in a file that is there completely or not at all."""

import datetime
import json

import pandas as pd
import pytest

from hpt_trl.data.row_writer import RowWriter

ROWS = [{"prompt": f"{number}+1", "solution": number + 1} for number in range(600)]
SUFFIXES = [".jsonl", ".parquet"]


def write(path, rows, error=None):
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
        if error is not None:
            raise error


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path).to_dict("records")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("count", [1, 256, 257, 600])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_rows_are_written_however_many_blocks_they_fill(tmp_path, suffix, count):
    path = tmp_path / f"rows{suffix}"
    write(path, ROWS[:count])
    assert read(path) == ROWS[:count]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [10, 300])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path, suffix, count):
    path = tmp_path / f"rows{suffix}"
    write(path, ROWS[:3])
    with pytest.raises(KeyError, match="of the reader's"):
        write(path, ROWS[:count], KeyError("of the reader's"))
    assert read(path) == ROWS[:3]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [10, 300])
def test_rows_that_differ_in_type_are_refused_and_leave_the_earlier_file(tmp_path, count):
    path = tmp_path / "rows.parquet"
    write(path, ROWS[:3])
    with pytest.raises(ValueError, match=r"one type.*Write \.jsonl instead"):
        write(path, [*ROWS[:count], {"prompt": "a", "solution": "a text"}])
    assert read(path) == ROWS[:3]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_there_until_the_last_row_is(tmp_path):
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as writer:
        for row in ROWS:
            writer.write(row)
        assert not path.exists()
    assert len(read(path)) == 600


def test_texts_are_readable_and_dates_become_texts(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, [{"prompt": "größer", "date": datetime.date(2026, 1, 2)}])
    assert path.read_text(encoding="utf-8") == '{"prompt": "größer", "date": "2026-01-02"}\n'


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.jsonl or \.parquet"):
        RowWriter(tmp_path / "rows.csv")
