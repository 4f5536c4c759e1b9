"""The longest prompt is found without reading the rows one by one, where the form of the column allows."""

import pytest
from datasets import Dataset

from hpt_trl.trainer.data_checks import longest_prompt


def user(content):
    return {"role": "user", "content": content}


@pytest.mark.parametrize(("prompts", "expected"), [
    (["1+1", "1+10", "é"], 4),
    (["é" * 5], 10),
    # 4 + 2 bytes and 4 + 3, and 32 for each message.
    ([[user("12345678")], [user("12"), user("123")]], 4 + 2 + 32 + 4 + 3 + 32),
    (["1+1", None], None),
    ([[user("1")], []], None),
    ([[user("1")], None], None),
    ([[user("1")], [user(None)]], None),
    ([[user([{"type": "text", "text": "1"}])]], None),
    ([[user("1") | {"name": "x"}]], None),
    ([5, 6], None),
    ([["a"]], None),
    ([], None),
])  # fmt: skip
def test_it_is_the_number_of_bytes_or_unknown(prompts, expected):
    assert longest_prompt(Dataset.from_dict({"prompt": prompts})) == expected


def test_rows_that_were_left_out_are_counted_in():
    rows = Dataset.from_dict({"prompt": ["1+1", "1+1000"]})
    assert longest_prompt(rows.select([0, 0]).shuffle(seed=0)) == 6
