"""Two runs are never mixed in one folder: a lock, an identity, one paragraph with the ways out."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from datasets import Dataset

from hpt_trl.common.errors import RunError
from hpt_trl.durability.identity import FILE_NAME, data_fingerprint, folder_lock, read_identity
from tests.durability.test_resume import EVERY_STEP, differences, end_of
from tests.forks import await_path, exit_codes, fork_ranks
from tests.tiny import ROWS, make_trainer

OPTIONS = EVERY_STEP | {"max_steps": 4}
OTHER_ROWS = Dataset.from_list([row | {"prompt": row["prompt"] + " "} for row in ROWS])


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    trainer = make_trainer(tiny_model, tmp_path_factory.mktemp("run"), **OPTIONS)
    trainer.train()
    return Path(trainer.args.output_dir), end_of(trainer)


@pytest.fixture
def copy(run, tmp_path):
    return Path(shutil.copytree(run[0], tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoint-4")))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_checkpoints_and_record_hold_the_identity_of_the_run(run):
    identity = read_identity(run[0] / "checkpoint-4" / FILE_NAME)
    assert identity == read_identity(run[0] / "checkpoint-1" / FILE_NAME)
    assert identity == read_identity(run[0] / "_record" / "run.json")
    assert identity.fixed | {"data": ""} == {
        "model": "tiny", "seed": 3, "data_seed": None, "data": "", "algorithm": "hpt", "gate": "switch"
    }  # fmt: skip
    assert identity.options["learning_rate"] == 1e-2
    assert not {"output_dir", "hub_token", "logging_steps", "save_steps"} & set(identity.options)


def test_a_fresh_start_over_another_run_is_refused(tiny_model, copy):
    before = names(copy)
    with pytest.raises(RunError, match=r"holds another run, with checkpoint-3\..*'auto'.*output_dir.*earlier-1"):
        make_trainer(tiny_model, copy, **OPTIONS).train()
    assert names(copy) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": OTHER_ROWS},
        {"algorithm": "grpo", "gate_threshold": 0.0},
        {"seed": 4},
        {"gate": "linear", "gate_threshold": 0.0},
    ],
    ids=["data", "algorithm", "seed", "gate"],
)
@pytest.mark.parametrize("wanted", [True, "auto"])
def test_auto_refuses_the_checkpoint_of_another_run(tiny_model, copy, changed, wanted):
    with pytest.raises(RunError, match=r"belongs to another run: \(then, now\).*output_dir.*overwrite_output_dir"):
        make_trainer(tiny_model, copy, **(OPTIONS | changed)).train(wanted)


def test_a_named_checkpoint_of_another_run_is_resumed_with_a_note(tiny_model, copy, tmp_path, caplog):
    trainer = make_trainer(tiny_model, tmp_path / "other", rows=OTHER_ROWS, **OPTIONS)
    trainer.train(str(copy / "checkpoint-3"))
    assert trainer.state.global_step == 4
    assert "is resumed with other options than it was written with (then, now): {'data'" in caplog.text


def test_a_checkpoint_from_elsewhere_does_not_mix_with_the_run_in_the_folder(tiny_model, run, copy, tmp_path):
    make_trainer(tiny_model, tmp_path / "second", **(OPTIONS | {"seed": 4})).train()
    trainer = make_trainer(tiny_model, tmp_path / "second", **OPTIONS)
    with pytest.raises(RunError, match="second' holds another run"):
        trainer.train(str(copy / "checkpoint-3"))
    make_trainer(tiny_model, copy, **OPTIONS).train(str(run[0] / "checkpoint-3"))  # the same run


def test_more_steps_and_another_learning_rate_are_allowed_and_noted(tiny_model, copy, caplog):
    trainer = make_trainer(tiny_model, copy, **(OPTIONS | {"max_steps": 5, "learning_rate": 1e-3}))
    trainer.train("auto")
    assert trainer.state.global_step == 5
    assert "'learning_rate': (0.01, 0.001)" in caplog.text
    assert "'max_steps': (4, 5)" in caplog.text


def test_a_finished_run_says_so(tiny_model, run, caplog):
    make_trainer(tiny_model, run[0], **OPTIONS).train("auto")
    assert "Already finished" in caplog.text
    assert "checkpoint-4 is of step 4, and max_steps is 4" in caplog.text


def test_the_identity_is_inherited_and_an_exact_resume_is_not_noted(tiny_model, run, copy, caplog):
    trainer = make_trainer(tiny_model, copy, **OPTIONS)
    trainer.train("auto")
    assert differences(end_of(trainer), run[1]) == []
    assert read_identity(copy / "checkpoint-4" / FILE_NAME) == read_identity(run[0] / "checkpoint-4" / FILE_NAME)
    assert "other options" not in caplog.text


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_overwrite_moves_the_other_run_aside_and_leaves_other_files(tiny_model, copy, wanted):
    (copy / "train.jsonl").write_text("data of the user")
    expected = names(copy) - {"train.jsonl", "_record"}
    trainer = make_trainer(tiny_model, copy, overwrite_output_dir=True, **(OPTIONS | {"seed": 4, "max_steps": 2}))
    assert trainer.train(wanted).global_step == 2
    aside = copy.with_name("copy.earlier-1")
    assert names(aside) == expected | {"_record"}
    assert names(aside / "_record") == {"run.json", "log.jsonl", "samples.jsonl"}
    assert (copy / "train.jsonl").exists()
    assert {name for name in names(copy) if "checkpoint" in name} == {"checkpoint-1", "checkpoint-2"}


def test_overwrite_does_not_touch_a_run_that_auto_continues(tiny_model, copy):
    trainer = make_trainer(tiny_model, copy, overwrite_output_dir=True, **OPTIONS)
    assert trainer.train("auto").global_step == 4
    assert not copy.with_name("copy.earlier-1").exists()


def test_auto_starts_again_where_its_own_run_was_killed_before_its_first_checkpoint(tiny_model, tmp_path):
    folder = tmp_path / "run"
    make_trainer(tiny_model, folder, **(OPTIONS | {"max_steps": 1, "save_strategy": "no"})).train()
    (folder / "checkpoint-1").mkdir()  # half-written
    assert make_trainer(tiny_model, folder, **OPTIONS).train("auto").global_step == 4
    shutil.rmtree(folder / "checkpoint-4")
    for step in (1, 2, 3):
        shutil.rmtree(folder / f"checkpoint-{step}")
        (folder / f"checkpoint-{step}").mkdir()
    with pytest.raises(RunError, match="holds another run"):
        make_trainer(tiny_model, folder, **(OPTIONS | {"seed": 4})).train("auto")


def test_a_trainer_may_train_again(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, **(OPTIONS | {"max_steps": 1}))
    trainer.train()
    assert trainer.train().global_step == 1


def test_a_checkpoint_without_identity_is_resumed(tiny_model, copy):
    (copy / "checkpoint-3" / FILE_NAME).unlink()
    (copy / "checkpoint-3" / "hpt_complete.json").unlink()
    trainer = make_trainer(tiny_model, copy, **OPTIONS)
    assert trainer.train(str(copy / "checkpoint-3")).global_step == 4


def test_two_trainings_in_one_folder_at_once_are_refused(tmp_path):
    def hold() -> None:
        with folder_lock(tmp_path / "run"):
            (tmp_path / "locked").touch()
            signal.pause()

    pids = fork_ranks(hold, tmp_path / "log")
    await_path(tmp_path / "locked", limit=60)
    with (
        pytest.raises(RunError, match=rf"Another training is running in .*\(process {pids[0]} on .*another output_dir"),
        folder_lock(tmp_path / "run"),
    ):
        pass
    os.kill(pids[0], signal.SIGKILL)
    exit_codes(pids)
    # The system has released the lock of the process that was killed; one process cannot take it twice.
    with (
        folder_lock(tmp_path / "run"),
        pytest.raises(RunError, match="this process"),
        folder_lock(tmp_path / "run"),
    ):
        pass
    with folder_lock(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_locked_is_a_warning(tmp_path, caplog):
    (tmp_path / "_record").write_text("a file")
    with folder_lock(tmp_path):
        assert "cannot be locked" in caplog.text


@pytest.mark.parametrize("content", ["[]", "5", "{}", '{"run_id": 1, "fixed": null, "options": {}}', "\0", "[" * 10000])
def test_an_identity_that_no_run_wrote_is_none(tmp_path, content):
    (tmp_path / FILE_NAME).write_text(content)
    assert read_identity(tmp_path / FILE_NAME) is None


def test_the_fingerprint_is_of_the_content(tmp_path):
    assert data_fingerprint(ROWS) == data_fingerprint(Dataset.from_list(ROWS.to_list()))
    ROWS.to_json(tmp_path / "rows.jsonl")
    assert data_fingerprint(Dataset.from_json(str(tmp_path / "rows.jsonl"))) == data_fingerprint(ROWS)
    others = [OTHER_ROWS, ROWS.select(range(15)), ROWS.shuffle(seed=1), ROWS.remove_columns("demonstration")]
    assert len({data_fingerprint(rows) for rows in [ROWS, *others]}) == 5
    assert data_fingerprint(ROWS.to_iterable_dataset()) is None
    assert data_fingerprint(None) is None
    assert data_fingerprint(Dataset.from_dict({"prompt": []}))
    assert data_fingerprint(Dataset.from_dict({"prompt": ["\U0001f600", "é"]}))
