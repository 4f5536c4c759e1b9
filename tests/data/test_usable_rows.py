"""Which rows of a stream can be trained on, and how those that cannot are counted."""

import pytest
from datasets import Dataset, IterableDataset

from hpt_trl.common.errors import RunError
from hpt_trl.data.usable_rows import UsableRows, only_usable, prompt_fault

CHAT = [{"role": "user", "content": "1+1?"}]


@pytest.mark.parametrize(
    "prompt",
    [
        "1+1?",
        CHAT,
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
        [*CHAT, {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}],
        [{"role": "user", "content": "a", "name": None}],
    ],
    ids=repr,
)
def test_prompts_that_trl_knows_are_usable(prompt):
    assert prompt_fault(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        (None, "is missing"),
        (5, "is of type int"),
        (1.5, "is of type float"),
        (b"1+1", "is of type bytes"),
        ({"role": "user"}, "is of type dict"),
        ("a\ud800", "has a lone surrogate"),
        ([], "has no messages"),
        ([None], "has a message without a role"),
        (["1+1"], "has a message without a role"),
        ([{"content": "a"}], "has a message without a role"),
        ([{"role": None, "content": "a"}], "has a message without a role"),
        ([*CHAT, {"role": "user", "content": None}], "has a message without content"),
        ([{"role": "user", "content": 5}], "has a message whose content is of type int"),
        ([{"role": "user", "content": [None]}], "has a message whose content is of type list"),
        ([{"role": "user", "content": "\udfff"}], "has a lone surrogate"),
        ([{"role": "user", "content": [{"type": "text", "text": "\udfff"}]}], "has a lone surrogate"),
    ],
    ids=repr,
)
def test_other_prompts_are_not_and_the_reason_is_named(prompt, fault):
    assert prompt_fault(prompt) == fault


def test_rows_of_a_stream_are_dropped_and_counted(caplog):
    rows = [
        {"prompt": None, "solution": "0"},
        {"prompt": "a", "solution": "1"},
        {"prompt": "b"},
        {"prompt": "", "solution": "2"},
        {"solution": "3"},
        {"prompt": CHAT, "solution": "4"},
        {"prompt": "c", "solution": None, "more": 1},
    ]
    filters = []
    stream = only_usable(IterableDataset.from_generator(lambda: iter(rows)), filters)
    assert [row["prompt"] for row in stream] == ["a", "c"]
    (usable,) = filters
    assert str(usable) == (
        "2 rows because its prompt is missing; 1 rows because it lacks the columns ['solution'] of the first row; "
        "1 rows because its prompt is empty; 1 rows because its prompt is not a text or not messages as in the first "
        "row"
    )
    assert caplog.text.count("A row of the stream was dropped") == 4


def test_rows_need_no_prompt_where_an_environment_writes_it():
    usable = UsableRows(needs_prompt=False)
    assert usable({"environment": "a"})
    assert not usable({"environment": "b", "prompt": None})
    assert not UsableRows()({"environment": "a"})


def test_a_stream_without_a_usable_row_does_not_go_on_for_ever():
    usable = UsableRows()
    with pytest.raises(RunError, match=r"None of the first 10,000 rows of the stream can be used: 10,000 rows because"):
        all(not usable({"prompt": 5}) for _ in range(20_000))


def test_data_that_can_be_searched_is_not_filtered():
    data, filters = Dataset.from_list([{"prompt": "a"}]), []
    assert only_usable(data, filters) is data
    assert filters == []
