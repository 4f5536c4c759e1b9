"""A file or folder is there completely or not at all, whatever ends the process that writes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpt_trl.common.files import UNFINISHED, atomic_path, write_atomically

ROOT = Path(__file__).parents[2]
WRITE_HALF = """
import os, signal, sys
from pathlib import Path
from hpt_trl.common.files import atomic_path

with atomic_path(Path(sys.argv[1]), per_process=sys.argv[2] == "True") as temporary:
    temporary.write_text("ha")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_while_writing(path, per_process=False):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WRITE_HALF, str(path), str(per_process)], env=environment)
    assert done.returncode == -signal.SIGKILL


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file.json"
    with atomic_path(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert names(path.parent) == ["file.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def fail_half_way():
        with atomic_path(path) as temporary:
            temporary.write_text("ha")
            raise ValueError("of the writer's")

    with pytest.raises(ValueError, match="of the writer's"):
        fail_half_way()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.json"]


def test_an_error_before_anything_is_written_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(ValueError, match="of the writer's"), atomic_path(tmp_path / "file.json"):
        raise ValueError("of the writer's")
    assert names(tmp_path) == []


@pytest.mark.parametrize("per_process", [False, True])
def test_a_kill_leaves_the_old_file(tmp_path, per_process):
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    killed_while_writing(path, per_process)
    assert path.read_text() == "old"
    # What is left is hidden, and named as unfinished.
    (left,) = set(names(tmp_path)) - {"file.json"}
    assert left.startswith(".")
    assert UNFINISHED in left


def test_the_next_writer_replaces_what_a_killed_one_left(tmp_path):
    path = tmp_path / "file.json"
    killed_while_writing(path)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.json"]


def test_the_suffix_is_kept_for_writers_that_choose_a_format_by_it(tmp_path):
    for name in ("table.parquet", "model.tar.gz"):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_bytes(b"")
            assert temporary.suffix == Path(name).suffix
            assert temporary.parent == tmp_path


def test_processes_that_write_the_same_path_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file.json"
    with atomic_path(path) as shared, atomic_path(path, per_process=True) as own:
        shared.write_text("shared")
        own.write_text("own")
        assert shared != own
        assert str(os.getpid()) in own.name
    assert path.read_text() == "shared"  # the last to end
    assert names(tmp_path) == ["file.json"]


def test_a_folder_appears_as_a_file_does(tmp_path):
    path = tmp_path / "folder"
    with atomic_path(path, durable=False) as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("a")
        assert not path.exists()
    assert names(path) == ["inside"]

    def fail_half_way():
        with atomic_path(tmp_path / "other") as temporary:
            temporary.mkdir()
            (temporary / "inside").write_text("a")
            raise ValueError("of the writer's")

    with pytest.raises(ValueError, match="of the writer's"):
        fail_half_way()
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("durable", [False, True])
def test_bytes_are_flushed_before_the_file_has_its_name_and_the_name_after(tmp_path, monkeypatch, durable):
    done = []

    def flush(path):
        done.append(("flushed", path.name))

    def replace(source, target):
        done.append(("renamed", target.name))
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr("hpt_trl.common.files.flush", flush)
    monkeypatch.setattr("hpt_trl.common.files.os.replace", replace)
    with atomic_path(tmp_path / "file.json", durable=durable) as temporary:
        temporary.write_text("a")
    both = [("flushed", temporary.name), ("renamed", "file.json"), ("flushed", tmp_path.name)]
    assert done == (both if durable else both[1:2])
