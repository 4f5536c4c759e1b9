"""A resumed run ends as the uninterrupted one does, to the bit; a checkpoint that is not whole is passed over."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback

from hpt_trl.common.errors import RunError
from hpt_trl.durability.checkpoints import (
    reporting_write_errors,
    resolve_resume_checkpoint,
    rotate,
)
from hpt_trl.durability.markers import MARKER, incomplete_reason, mark_complete
from tests.durability.kill_and_resume import OPTIONS, differences, log_without_times
from tests.forks import launch
from tests.tiny import ROWS, make_trainer, parameters
from tests.trainer.test_trainer import logged

NAMES = ("whole", "resumed")
EVERY_STEP = OPTIONS | {"save_total_limit": None}


def end_of(trainer):
    """Final state in the form of tests/durability/kill_and_resume.py."""
    state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
    return (
        state,
        log_without_times(trainer.state.log_history),
        pd.read_parquet(Path(trainer.args.output_dir) / "gate.parquet"),
    )


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """A run over two epochs with a checkpoint at every step, a generation every second one, and how it ended."""
    trainer = make_trainer(tiny_model, tmp_path_factory.mktemp("whole"), **EVERY_STEP)
    trainer.train()
    return Path(trainer.args.output_dir), end_of(trainer)


# Between two generations and two log lines; between two epochs; in the second epoch; after the last step.
@pytest.mark.parametrize("step", [3, 8, 9, 10])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tiny_model, tmp_path, whole, step):
    folder, expected = whole
    trainer = make_trainer(tiny_model, tmp_path, **(EVERY_STEP | {"save_strategy": "no"}))
    trainer.train(str(folder / f"checkpoint-{step}"))
    assert differences(end_of(trainer), expected) == []
    assert trainer.state.global_step == 10


def differences_after_resuming(model, folder, step, **options):
    """Which parts of a run's end are not those of the run it was resumed from."""
    ends = []
    for name, checkpoint in zip(NAMES, (None, str(folder / "whole" / f"checkpoint-{step}"))):
        trainer = make_trainer(model, folder / name, **(EVERY_STEP | options))
        trainer.train(checkpoint)
        ends.append(end_of(trainer))
    return differences(*ends)


@pytest.mark.parametrize("options", [{"eval_strategy": "epoch"}, {"logging_strategy": "epoch"}])
def test_what_an_epoch_ends_with_comes_before_its_checkpoint(tiny_model, tmp_path, options):
    held_out = {"trainer": {"eval_dataset": ROWS.select(range(3))}, "per_device_eval_batch_size": 4}
    assert differences_after_resuming(tiny_model, tmp_path, 8, **held_out, **options) == []


@pytest.mark.parametrize("step", [3, 11])
def test_a_stream_is_gone_on_with_where_it_was_left_also_when_it_is_read_again(tiny_model, tmp_path, step):
    options = {"rows": ROWS.to_iterable_dataset(), "max_steps": step + 3}
    assert differences_after_resuming(tiny_model, tmp_path, step, **options) == []


def test_a_reference_model_that_follows_the_policy_is_resumed(tiny_model, tmp_path):
    options = {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2, "max_steps": 5}
    assert differences_after_resuming(tiny_model, tmp_path, 3, **options) == []


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 0.1, "num_iterations": 2, "lora": True},
        {"gate": "off", "gate_threshold": 0.0, "log_completions": True},
        {"algorithm": "sft", "gate_threshold": 0.0},
        {"max_tokens_per_forward": 64, "logging_steps": 4},
        {"entropy_coef": 0.01, "use_adaptive_entropy": True},
    ],
    ids=["lora", "grpo", "sft", "budget", "entropy"],
)
def test_what_a_run_remembers_depends_on_its_options(tiny_model, tmp_path, options):
    options = EVERY_STEP | {"max_steps": 4, "save_steps": 3} | options
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    extra = {"trainer": {"peft_config": lora}} if options.pop("lora", False) else {}
    ends = []
    for name, checkpoint in zip(NAMES, (None, str(tmp_path / "whole" / "checkpoint-3"))):
        trainer = make_trainer(tiny_model, tmp_path / name, **extra, **options)
        trainer.train(checkpoint)
        ends.append(end_of(trainer))
    assert differences(*ends) == []
    if "log_completions" in options:
        tables = [pd.read_parquet(tmp_path / name / "completions/completions_00004.parquet") for name in NAMES]
        assert len(tables[0]) == 16
        assert tables[0].equals(tables[1])


def test_a_checkpoint_that_is_not_whole_is_passed_over(tiny_model, tmp_path, whole, caplog):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder, ignore=shutil.ignore_patterns("checkpoint-[2-6]", "checkpoint-10"))
    (folder / "checkpoint-9" / MARKER).unlink()
    with open(folder / "checkpoint-8" / "optimizer.pt", "r+b") as file:
        file.truncate(100)
    (folder / "checkpoint-7" / "trainer_state.json").unlink()
    trainer = make_trainer(tiny_model, folder, **(EVERY_STEP | {"save_strategy": "no"}))
    trainer.train(resume_from_checkpoint=True)
    told = [record.getMessage() for record in caplog.records if "Skipping" in record.getMessage()]
    assert "checkpoint-7': its file trainer_state.json is missing" in told[0]
    assert "checkpoint-8': its file optimizer.pt has 100 bytes instead of" in told[1]
    assert f"checkpoint-9': it has no {MARKER}" in told[2]
    # Nine steps were made again, from checkpoint-1, and none stands twice in the history.
    assert differences(end_of(trainer), whole[1]) == []


def test_a_truncated_checkpoint_is_refused_by_name(tiny_model, tmp_path, whole):
    shutil.copytree(whole[0] / "checkpoint-3", tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    trainer = make_trainer(tiny_model, tmp_path, **EVERY_STEP)
    with pytest.raises(RunError, match=r"not a complete checkpoint: its file model\.safetensors has 0 bytes"):
        trainer.train(str(tmp_path / "checkpoint-3"))


def test_a_checkpoint_of_grpo_can_be_named_and_is_told_not_to_be_exact(tiny_model, tmp_path, caplog):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make_trainer(tiny_model, tmp_path, hpt=False, **options).train()
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25, **options)
    with pytest.raises(RunError, match="no complete checkpoint in"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train(str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 4
    assert f"it has no {MARKER}" in caplog.text
    assert "The resumed run is not exact" in caplog.text


def test_auto_starts_anew_where_there_is_nothing_to_resume(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "new")
    assert trainer.train("auto").global_step == 3


def test_auto_starts_nothing_anew_that_another_machine_could_go_on_with(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("hpt_trl.durability.checkpoints.gather_object", lambda own: [*own, {10: None}])
    with pytest.raises(RunError, match="none that every process sees"):
        resolve_resume_checkpoint("auto", tmp_path)
    assert resolve_resume_checkpoint("auto", whole[0]) == str(whole[0] / "checkpoint-10")


def test_other_options_make_a_resume_inexact_with_a_message(tiny_model, tmp_path, whole, caplog):
    options = EVERY_STEP | {"max_steps": 4, "steps_per_generation": 2, "save_strategy": "no"}
    trainer = make_trainer(tiny_model, tmp_path, **options)
    trainer.train(str(whole[0] / "checkpoint-3"))
    assert "written with other options (then, now): {'steps_per_generation': (4, 2)}" in caplog.text
    assert trainer.state.global_step == 4


def test_a_checkpoint_written_over_is_not_whole_meanwhile(tiny_model, tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder, ignore=shutil.ignore_patterns("checkpoint-[5-9]", "checkpoint-10"))
    (folder / "checkpoint-3" / f"{MARKER}.unfinished").touch()  # killed while it was being marked
    flaws = []

    class Watch(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            flaws.append(incomplete_reason(folder / f"checkpoint-{state.global_step}"))

    trainer = make_trainer(tiny_model, folder, trainer={"callbacks": [Watch()]}, **(EVERY_STEP | {"max_steps": 4}))
    trainer.train(str(folder / "checkpoint-2"))
    assert flaws == [None, None]
    names = json.loads((folder / "checkpoint-4" / MARKER).read_text())["files"]
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "hpt_state_0.pth", "gate.parquet"} <= set(names)


def test_old_checkpoints_go_and_whole_ones_stay_longest(tmp_path):
    def names(limit, best=None):
        rotate(tmp_path / "checkpoint-6", limit, best)
        return sorted(path.name for path in tmp_path.iterdir())

    for step in (1, 2, 3, 4, 6, 7):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 3:
            mark_complete(tmp_path / f"checkpoint-{step}")
    assert len(names(None)) == 6
    # First what is half-written, or lies ahead of the one just written; then the oldest.
    assert names(4) == ["checkpoint-1", "checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert names(2, best="elsewhere/checkpoint-1") == ["checkpoint-1", "checkpoint-6"]
    assert names(1) == ["checkpoint-6"]


def test_the_closing_line_is_of_the_whole_run(tiny_model, tmp_path, whole):
    expected = json.loads(whole[1][1])[-1]["train_loss"]
    trainer = make_trainer(tiny_model, tmp_path, **(EVERY_STEP | {"save_strategy": "no"}))
    output = trainer.train(str(whole[0] / "checkpoint-9"))
    assert output.training_loss == logged(trainer, "train_loss")[0] == expected
    assert output.metrics["train_runtime"] > torch.load(whole[0] / "checkpoint-9/hpt_state_0.pth")["seconds"]


def test_three_killed_runs_end_as_the_uninterrupted_one():
    assert "3 of 3 killed runs ended" in launch(
        "tests.durability.kill_and_resume", "--kills", "3", "--seed", "1", limit=300
    )


@pytest.mark.distributed
def test_twenty_killed_runs_end_as_the_uninterrupted_one():
    assert "20 of 20 killed runs ended" in launch("tests.durability.kill_and_resume", "--kills", "20", limit=1500)


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [2, 3])
def test_a_resumed_run_under_deepspeed_ends_as_the_uninterrupted_one(tiny_model, tmp_path, stage):
    pytest.importorskip("deepspeed", reason="deepspeed is an extra")
    zero3 = str(stage == 3).lower()
    (tmp_path / "zero.yaml").write_text(
        "{compute_environment: LOCAL_MACHINE, distributed_type: DEEPSPEED, mixed_precision: 'no', num_machines: 1, "
        "num_processes: 2, machine_rank: 0, main_process_port: 0, rdzv_backend: static, same_network: true, "
        f"deepspeed_config: {{gradient_accumulation_steps: auto, zero_stage: {stage}, offload_optimizer_device: none, "
        f"offload_param_device: none, zero3_init_flag: {zero3}, zero3_save_16bit_model: {zero3}}}}}"
    )
    flags = [
        "--config_file",
        str(tmp_path / "zero.yaml"),
        "-m",
        "tests.durability.resume_worker",
        tiny_model,
        str(tmp_path),
    ]
    assert "identical" in launch("accelerate.commands.launch", *flags, limit=600)


def test_a_checkpoint_that_another_process_does_not_see_is_no_reason_to_start_over(whole, monkeypatch):
    """Here every checkpoint is complete; the other process's folder is empty."""
    folder, _ = whole
    monkeypatch.setattr("hpt_trl.durability.checkpoints.gather_object", lambda own: [*own, {}])
    for wanted in (True, "auto"):
        with pytest.raises(RunError, match="none that every process sees"):
            resolve_resume_checkpoint(wanted, folder)


def test_the_newest_checkpoint_is_one_that_is_complete_everywhere(whole, monkeypatch):
    folder, _ = whole
    elsewhere = {1: None, 2: None, 3: "its file model.safetensors is missing"}
    monkeypatch.setattr("hpt_trl.durability.checkpoints.gather_object", lambda own: [*own, elsewhere])
    assert resolve_resume_checkpoint(True, folder) == str(folder / "checkpoint-2")


def test_errors_that_explain_themselves_pass_through_the_writing_of_a_checkpoint(tmp_path, monkeypatch):
    explained = RunError("The other process has said why.")
    with (
        pytest.raises(RunError, match=r"^The other process has said why\.$"),
        reporting_write_errors(tmp_path, together=False),
    ):
        raise explained
    lost = RuntimeError("Connection closed by peer")
    with (
        pytest.raises(RunError, match="could not be written: Connection closed"),
        reporting_write_errors(tmp_path, together=False),
    ):
        raise lost
    # Among several processes it is the connection that is lost, not the disk that is full.
    monkeypatch.setattr("hpt_trl.durability.checkpoints.is_lost_connection", lambda error: error is lost)
    with (
        pytest.raises(RuntimeError, match=r"^Connection closed by peer$"),
        reporting_write_errors(tmp_path, together=False),
    ):
        raise lost
