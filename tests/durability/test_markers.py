"""Every kind of damage to a checkpoint is noticed and named, and an older checkpoint is resumed from instead."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from hpt_trl.common.errors import RunError
from hpt_trl.durability.checkpoints import load_state, resolve_resume_checkpoint
from hpt_trl.durability.markers import MARKER, clear_checkpoint, damage_reason, incomplete_reason, mark_complete
from tests.durability import damage
from tests.durability.test_resume import EVERY_STEP, differences, end_of
from tests.forks import launch
from tests.tiny import make_trainer

OPTIONS = EVERY_STEP | {"max_steps": 4}


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A run of four steps with a checkpoint at each, and how it ended."""
    trainer = make_trainer(tiny_model, tmp_path_factory.mktemp("run"), **OPTIONS)
    trainer.train()
    return Path(trainer.args.output_dir), end_of(trainer)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run with two checkpoints, 2 and 3."""
    ignored = shutil.ignore_patterns("checkpoint-1", "checkpoint-4")
    return Path(shutil.copytree(run[0], tmp_path / "copy", ignore=ignored))


@pytest.mark.parametrize("name", damage.FILES)
@pytest.mark.parametrize("how", damage.OF_FILES, ids=lambda how: how.__name__)
def test_damage_to_a_file_is_noticed_and_named(copy, caplog, name, how):
    how(copy / "checkpoint-3" / name, random.Random(0))
    assert f"its file {name}" in damage_reason(copy / "checkpoint-3")
    assert resolve_resume_checkpoint("auto", copy) == str(copy / "checkpoint-2")
    assert "checkpoint-3': " in caplog.text
    assert name in caplog.text
    with pytest.raises(RunError, match=f"not a complete checkpoint: .*{name}"):
        resolve_resume_checkpoint(str(copy / "checkpoint-3"), copy)


@pytest.mark.parametrize("name", damage.MARKERS)
def test_a_marker_that_no_run_wrote_is_skipped(copy, caplog, name):
    damage.bad_marker(name)(copy / "checkpoint-3", random.Random(0))
    assert resolve_resume_checkpoint(True, copy) == str(copy / "checkpoint-2")
    assert MARKER in caplog.text


@pytest.mark.parametrize("how", [damage.folder_instead, damage.loop_instead])
def test_a_marker_that_is_no_file_is_skipped_and_can_be_replaced(copy, how):
    how(copy / "checkpoint-3" / MARKER, random.Random(0))
    assert MARKER in incomplete_reason(copy / "checkpoint-3")
    assert resolve_resume_checkpoint(True, copy) == str(copy / "checkpoint-2")
    clear_checkpoint(copy / "checkpoint-3")
    assert list((copy / "checkpoint-3").iterdir()) == []


@pytest.mark.parametrize("how", [damage.checkpoint_is_file, damage.checkpoint_is_loop])
def test_a_checkpoint_that_is_no_folder_is_skipped(copy, caplog, how):
    how(copy / "checkpoint-3", random.Random(0))
    assert resolve_resume_checkpoint("auto", copy) == str(copy / "checkpoint-2")
    assert "checkpoint-3': it is not a folder" in caplog.text
    with pytest.raises(RunError, match="not a complete checkpoint: it is not a folder"):
        resolve_resume_checkpoint(str(copy / "checkpoint-3"), copy)


def test_a_run_resumed_over_a_damaged_checkpoint_ends_as_the_uninterrupted_one(tiny_model, run, copy):
    damage.flipped(copy / "checkpoint-3" / "optimizer.pt", random.Random(0))
    trainer = make_trainer(tiny_model, copy, **OPTIONS)
    trainer.train("auto")
    assert differences(end_of(trainer), run[1]) == []
    assert damage_reason(copy / "checkpoint-3") is None  # written again


def test_where_a_file_stands_in_the_way_of_a_checkpoint_the_run_says_so(tiny_model, copy):
    damage.checkpoint_is_file(copy / "checkpoint-3", random.Random(0))
    trainer = make_trainer(tiny_model, copy, **OPTIONS)
    with pytest.raises(RunError, match=r"checkpoint-3' could not be written: .*checkpoint-2' is complete"):
        trainer.train("auto")


def test_checkpoints_of_early_versions_are_judged_by_their_sizes(copy):
    damage.without_checksums(copy / "checkpoint-3")
    assert damage_reason(copy / "checkpoint-3") is None
    damage.zeros(copy / "checkpoint-3" / "optimizer.pt", random.Random(0))
    assert damage_reason(copy / "checkpoint-3") is None
    damage.truncated(copy / "checkpoint-3" / "optimizer.pt", random.Random(0))
    assert "optimizer.pt has" in damage_reason(copy / "checkpoint-3")


@pytest.mark.parametrize("name", [*damage.FILES[:-1], "rng_state.pth"])
def test_damage_without_checksums_ends_in_one_paragraph_that_names_the_checkpoint(tiny_model, copy, name):
    damage.without_checksums(copy / "checkpoint-3")
    damage.zeros(copy / "checkpoint-3" / name, random.Random(0))
    trainer = make_trainer(tiny_model, copy, **OPTIONS)
    with pytest.raises(RunError, match="checkpoint-3") as caught:
        trainer.train("auto")
    assert "\n" not in str(caught.value)


def test_files_of_a_former_writing_do_not_stay(tiny_model, copy):
    """The former run had two processes; its second state would be adopted by a later run on two."""
    for name in ("hpt_state_1.pth", "rng_state_1.pth", "model-00001-of-00002.safetensors"):
        (copy / "checkpoint-3" / name).write_bytes(b"stale")
    make_trainer(tiny_model, copy, **OPTIONS).train(str(copy / "checkpoint-2"))
    names = {path.name for path in (copy / "checkpoint-3").iterdir()}
    assert {"hpt_state_0.pth", "rng_state.pth", "model.safetensors", MARKER} <= names
    assert not names & {"hpt_state_1.pth", "rng_state_1.pth", "model-00001-of-00002.safetensors"}


def test_a_state_that_another_process_lacks_is_adopted_by_none(copy, monkeypatch, caplog):
    checkpoint = copy / "checkpoint-3"
    layout = torch.load(checkpoint / "hpt_state_0.pth", weights_only=True)["layout"]
    assert load_state(checkpoint, 0, layout, torch.device("cpu")) is not None
    monkeypatch.setattr("hpt_trl.durability.checkpoints.first_fault", lambda own: own or "process 1 has no state")
    assert load_state(checkpoint, 0, layout, torch.device("cpu")) is None
    assert "process 1 has no state. The resumed run is not exact" in caplog.text


def test_a_checkpoint_can_be_marked_and_cleared(tmp_path):
    (tmp_path / "shard").mkdir()
    (tmp_path / "shard" / "part.bin").write_bytes(b"abc")
    mark_complete(tmp_path)
    # sha256sum of "abc", from FIPS 180-2.
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in (tmp_path / MARKER).read_text()
    assert damage_reason(tmp_path) is None
    clear_checkpoint(tmp_path)
    clear_checkpoint(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_nine_trials_of_the_breaker_survive():
    """Of as many kinds; `make test-faults` makes some hundreds of all kinds."""
    assert "9 trials survived, 0 failed" in launch(
        "tests.durability.breaker", "--trials", "9", "--workers", "1", limit=500
    )
