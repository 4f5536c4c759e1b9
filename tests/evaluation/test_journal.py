"""Whatever a kill leaves of the file, complete batches are kept and nothing else."""

import json

import pytest

from hpt_trl.evaluation.journal import Journal
from hpt_trl.evaluation.scores import Answer

BATCHES = [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(2, 0)]]
SETTINGS = {"temperature": 0.6, "versions": {"torch": "1"}}


def answers(batch):
    return [Answer(problem, sample, f"line\n{problem} é", 3, False, "wrong") for problem, sample in batch]


def filled(folder):
    journal = Journal(folder, "s", SETTINGS, BATCHES)
    for batch in BATCHES:
        journal.append(answers(batch))
    return journal.path


def test_complete_batches_remain_wherever_the_file_is_truncated(tmp_path):
    path = filled(tmp_path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    ends = [0, len(b"".join(lines[:2])), len(b"".join(lines[:4])), len(content)]
    near = {end + step for end in ends for step in (-1, 0, 1)} & set(range(len(content) + 1))
    for length in sorted({*range(0, len(content), 5), *near}):
        path.write_bytes(content[:length])
        journal = Journal(tmp_path, "s", SETTINGS, BATCHES)
        complete = sum(end <= length for end in ends) - 1
        assert journal.finished == [answers(batch) for batch in BATCHES[:complete]]
        assert path.stat().st_size == ends[complete]
        for batch in BATCHES[complete:]:
            journal.append(answers(batch))
        assert path.read_bytes() == content


@pytest.mark.parametrize("tail", [b"\0" * 200, b"\0" * 200 + b"\n", b'{"problem": 1}\n', b"[1]\n", b"\xff\xfe\n"])
def test_invalid_answers_are_removed(tmp_path, tail):
    path = filled(tmp_path)
    first = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    path.write_bytes(first + tail)
    assert Journal(tmp_path, "s", SETTINGS, BATCHES).finished == [answers(BATCHES[0])]
    assert path.read_bytes() == first


def test_other_settings_are_refused_with_the_changes(tmp_path):
    filled(tmp_path)
    with pytest.raises(ValueError, match=r"temperature was 0.6 and is 1.0.*another output folder"):
        Journal(tmp_path, "s", SETTINGS | {"temperature": 1.0}, BATCHES)
    assert len(Journal(tmp_path, "s", SETTINGS, BATCHES).finished) == 3
    assert Journal(tmp_path, "other", SETTINGS | {"temperature": 1.0}, BATCHES).finished == []


def test_answers_without_settings_are_not_trusted(tmp_path):
    path = filled(tmp_path)
    (tmp_path / "s.settings.json").unlink()
    assert Journal(tmp_path, "s", SETTINGS, BATCHES).finished == []
    assert not path.exists()
    assert json.loads((tmp_path / "s.settings.json").read_text()) == SETTINGS
