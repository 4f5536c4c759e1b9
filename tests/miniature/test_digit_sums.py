import pytest

from hpt_trl.data.sources import resolve_rows
from hpt_trl.miniature.digit_sums import digit_sums
from hpt_trl.verifier.verdicts import accuracy_reward


def test_every_number_is_in_one_split():
    train, test = ([row["prompt"] for row in digit_sums(split)] for split in ("train", "test"))
    assert (len(train), len(test)) == (160, 740)
    assert sorted(train + test) == [f"sum {number}\n" for number in range(100, 1000)]


def test_demonstrations_are_right_line_by_line():
    rows = digit_sums("train") + digit_sums("test")
    assert accuracy_reward([row["demonstration"] for row in rows], [row["solution"] for row in rows]) == [1.0] * 900
    for row in rows:
        assert sum(map(int, row["prompt"][4:-1])) == int(row["solution"])
        for line in row["demonstration"].splitlines()[:-1]:
            terms, total = line.split("=")
            assert sum(map(int, terms.split("+"))) == int(total)


def test_the_task_is_chosen_by_dataset_config():
    assert resolve_rows("miniature", "train", "digit_sums").to_list() == digit_sums("train")
    assert resolve_rows("miniature", "test")[0] == resolve_rows("miniature", "test", "chains")[0]
    with pytest.raises(ValueError, match=r"has the tasks .'chains', 'digit_sums', 'sums'., got dataset_config='x'"):
        resolve_rows("miniature", "train", "x")
    with pytest.raises(ValueError, match="splits 'train' and 'test', got 'validation'"):
        resolve_rows("miniature", "validation")
