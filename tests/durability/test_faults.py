"""A run that cannot go on says why in one paragraph, on every process, and leaves a checkpoint to go on from."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, TrainerCallback

from hpt_trl import HPTConfig
from hpt_trl.common.command_line import run_errors
from hpt_trl.common.errors import RunError
from hpt_trl.durability.markers import incomplete_reason
from hpt_trl.trainer.checks import check_launch, context_length
from tests.durability.fault_worker import AtStep
from tests.forks import ROOT, await_path, launch
from tests.tiny import ROWS, make_trainer, parameters
from tests.trainer.test_trainer import logged
from tests.verifier import functions


def raises(completion_ids, **kwargs):
    raise KeyError("solution")


def one_short(completion_ids, **kwargs):
    return [0.0] * (len(completion_ids) - 1)


def divides_by_zero(completion_ids, **kwargs):
    return [0.0] * (len(completion_ids) - 1) + [float("nan")]


def unbounded(completion_ids, **kwargs):
    return [float("inf")] * len(completion_ids)


def one_number(completion_ids, **kwargs):
    return 0.5


def words(completion_ids, **kwargs):
    return ["right"] * len(completion_ids)


async def raises_async(completion_ids, **kwargs):
    raise KeyError("solution")


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (raises, r"'raises' raised KeyError: 'solution' in .*test_faults.py, line \d+ \(process 0, 16 completions\)"),
        (raises_async, r"'raises_async' raised KeyError: 'solution' in .*test_faults.py, line \d+"),
        (one_short, "'one_short' returned 15 rewards for 16 completions"),
        (divides_by_zero, "'divides_by_zero' returned nan for completion 15, which is not a finite number"),
        (unbounded, "'unbounded' returned inf for completion 0"),
        (one_number, "'one_number' returned a float instead of a list of 16 rewards"),
        (words, "'words' returned 'right' for completion 0"),
        (functions.hangs, r"'hangs' did not return within reward_timeout \(0.3 s\)"),
        (functions.hangs_async, r"'hangs_async' did not return within reward_timeout \(0.3 s\)"),
        (
            functions.keeps_the_interpreter_lock,
            r"'keeps_the_interpreter_lock' did not return within reward_timeout \(0.3 s\)",
        ),
        (functions.blocks_the_event_loop, r"'blocks_the_event_loop' did not return within reward_timeout \(0.3 s\)"),
    ],
)
def test_a_reward_function_that_fails_is_named(tiny_model, tmp_path, reward, told):
    limit = {"reward_timeout": 0.3} if reward.__module__ == functions.__name__ else {}
    trainer = make_trainer(tiny_model, tmp_path, reward=reward, **limit)
    with pytest.raises(RunError, match=told + ".* at step 0. Fix it, or return None") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)


def test_a_limit_on_rewards_changes_nothing_while_they_keep_it(tiny_model, tmp_path):
    with_limit, without = (make_trainer(tiny_model, tmp_path, reward_timeout=limit) for limit in (60.0, None))
    for trainer in (with_limit, without):
        torch.manual_seed(0)
        trainer.train()
    assert torch.equal(parameters(with_limit), parameters(without))


def test_a_limit_on_rewards_must_be_below_that_of_collectives(tmp_path):
    args = HPTConfig(str(tmp_path), use_cpu=True, bf16=False, reward_timeout=2000.0)
    check_launch(args, SimpleNamespace(distributed_type="NO", num_processes=1))
    with pytest.raises(ValueError, match=r"reward_timeout \(2000.0 s\) must be below ddp_timeout \(1800 s\)"):
        check_launch(args, SimpleNamespace(distributed_type="MULTI_CPU", num_processes=2))


def test_a_prompt_longer_than_the_context_is_told_before_the_run(tiny_model, tmp_path):
    rows = Dataset.from_list([*ROWS, {"prompt": "9" * 256, "demonstration": "so", "solution": "1"}])
    with pytest.raises(ValueError, match=r"a prompt of 256 tokens leaves no room .* There are 1 of them in 17 rows"):
        make_trainer(tiny_model, tmp_path, rows=rows)
    make_trainer(tiny_model, tmp_path, rows=Dataset.from_list([*ROWS, ROWS[0] | {"prompt": "9" * 255}]))


def test_a_prompt_longer_than_the_context_in_a_stream_is_told_before_it_is_generated_from(tiny_model, tmp_path):
    rows = Dataset.from_list([*ROWS.select(range(7)), ROWS[7] | {"prompt": "9" * 300}]).to_iterable_dataset()
    trainer = make_trainer(tiny_model, tmp_path, rows=rows)
    with pytest.raises(RunError, match=r"At step 1, a prompt of 300 tokens leaves no room for an answer"):
        trainer.train()


def test_the_context_counts_rope_scaling():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "rope_theta": 10000.0}
    assert context_length(LlamaConfig(max_position_embeddings=1024)) == 1024
    assert context_length(LlamaConfig(max_position_embeddings=1024, rope_parameters=yarn)) == 4096


def test_answers_of_nothing_but_the_end_are_trained_on(tiny_model, tmp_path):
    def is_empty(completions, **kwargs):
        assert set(completions) == {""}
        return [float(row % 4 == 0) for row in range(len(completions))]

    trainer = make_trainer(tiny_model, tmp_path, reward=is_empty, max_steps=1)
    eos = trainer.processing_class.eos_token_id
    others = [token for token in range(trainer.model.config.vocab_size) if token != eos]
    trainer.generation_config.suppress_tokens = others
    before = parameters(trainer).clone()
    trainer.train()
    assert logged(trainer, "completions/mean_length") == [1.0]
    assert parameters(trainer).isfinite().all()
    assert not torch.equal(parameters(trainer), before)


def test_a_run_that_learns_nothing_any_more_stops_with_advice(tiny_model, tmp_path):
    def exploding(rate_P, step):
        return torch.zeros_like(rate_P), torch.full_like(rate_P, 1.0 if step == 1 else 3e38)

    options = {"max_steps": 10, "max_skipped_steps_in_row": 3, "trainer": {"gate": exploding}}
    trainer = make_trainer(tiny_model, tmp_path, **options)
    # Step 0 is skipped, step 1 is not, steps 2, 3 and 4 are.
    with pytest.raises(RunError, match=r"norm of 3 consecutive optimizer steps, up to step 4, is not finite"):
        trainer.train()
    assert logged(trainer, "hpt/skipped_steps") == [1.0, 1.0, 2.0, 3.0]
    assert parameters(trainer).isfinite().all()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_a_checkpoint_and_exits_with_its_own_code(tiny_model, tmp_path, caplog, number, code):
    before = signal.getsignal(number)
    whole = make_trainer(tiny_model, tmp_path / "whole", max_steps=4)
    whole.train()
    stop = AtStep(2, lambda: os.kill(os.getpid(), number))
    stopped = make_trainer(tiny_model, tmp_path / "stopped", max_steps=4, trainer={"callbacks": [stop]})
    with pytest.raises(SystemExit) as end:
        stopped.train()
    assert end.value.code == code
    assert "saving a checkpoint at step 2" in caplog.text
    assert "--resume_from_checkpoint auto" in caplog.text
    assert signal.getsignal(number) == before
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = make_trainer(tiny_model, tmp_path / "stopped", max_steps=4)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(parameters(resumed), parameters(whole))


def test_a_second_ctrl_c_ends_the_run_at_once(tiny_model, tmp_path, monkeypatch, capsys):
    """The first is not repeated by a launcher, which forwards it within a second."""

    def interrupt_three_times() -> None:
        for now in (100.0, 100.5, 102.0):
            monkeypatch.setattr("hpt_trl.durability.faults.time.monotonic", lambda now=now: now)
            pressed.append(now)
            os.kill(os.getpid(), signal.SIGINT)

    pressed: list[float] = []
    trainer = make_trainer(tiny_model, tmp_path, max_steps=4, trainer={"callbacks": [AtStep(2, interrupt_three_times)]})
    with pytest.raises(SystemExit, match="130"), run_errors("train"):
        trainer.train()
    assert len(pressed) == 3
    errors = capsys.readouterr().err
    assert errors.count("Press Ctrl-C again to stop immediately") == 1
    assert "train: interrupted. `--resume_from_checkpoint auto`" in errors
    assert not list(tmp_path.glob("checkpoint-*"))
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("step", [3, 4])
def test_sigterm_leaves_what_an_epoch_ends_with_to_the_epochs_end(tiny_model, tmp_path, step):
    """An epoch is 4 steps. Saved once: a second save could be cut short, and would come after another evaluation."""
    saves = []

    class Count(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            saves.append(state.global_step)

    stop = AtStep(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    extra = {"callbacks": [stop, Count()], "eval_dataset": ROWS.select(range(3))}
    options = {"max_steps": 6, "eval_strategy": "epoch", "save_strategy": "epoch", "per_device_eval_batch_size": 4}
    trainer = make_trainer(tiny_model, tmp_path, trainer=extra, **options)
    with pytest.raises(SystemExit):
        trainer.train()
    assert saves == [step]
    assert len(logged(trainer, "eval_loss")) == (step == 4)


def test_sigterm_keeps_its_checkpoint_beside_the_best(tiny_model, tmp_path):
    stop = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    extra = {"callbacks": [stop], "eval_dataset": ROWS.select(range(3))}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "entropy", "save_total_limit": 1}
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    trainer = make_trainer(tiny_model, tmp_path, trainer=extra, per_device_eval_batch_size=4, **best, **steps)
    with pytest.raises(SystemExit):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_sigterm_in_the_last_step_lets_the_run_end(tiny_model, tmp_path):
    stop = AtStep(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert make_trainer(tiny_model, tmp_path, trainer={"callbacks": [stop]}).train().global_step == 3


@pytest.fixture(scope="module")
def scenarios(tiny_model, tmp_path_factory):
    """Folder of the runs of tests/durability/fault_worker.py."""
    folder = tmp_path_factory.mktemp("faults")
    launch("tests.durability.fault_worker", tiny_model, str(folder), limit=1500)
    return folder


def codes(folder, name):
    return json.loads((folder / "results.json").read_text())[name]["codes"]


def said(folder, name, rank):
    return (folder / name / f"log_{rank}.txt").read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [("reward_raises", "'fails_on_rank_1' raised KeyError: 'solution'"), ("reward_hangs", "did not return within")],
)
def test_a_reward_that_fails_on_one_process_ends_all(scenarios, name, told):
    assert codes(scenarios, name) == [1, 1]
    # Told once a machine, by the process that did not meet it.
    assert told in said(scenarios, name, 0)
    assert "(process 1, 8 completions)" in said(scenarios, name, 0)
    assert "Traceback" not in said(scenarios, name, 0) + said(scenarios, name, 1)


def test_a_killed_process_ends_the_others(scenarios):
    # Long before a collective gives up, after `ddp_timeout`: then it would have been killed too.
    assert codes(scenarios, "killed") == [1, -9]
    assert "Process 0 lost its connection to the others: another process of this run has died" in said(
        scenarios, "killed", 0
    )
    assert incomplete_reason(scenarios / "killed" / "checkpoint-1") is None


def test_sigterm_to_one_process_stops_all_together(scenarios):
    assert codes(scenarios, "interrupted") == [130, 130]
    assert "Ctrl-C: saving a checkpoint at step 2, then exiting with code 130" in said(scenarios, "interrupted", 0)
    assert codes(scenarios, "terminated") == [143, 143]
    assert "SIGTERM: saving a checkpoint at step 2, then exiting with code 143" in said(scenarios, "terminated", 0)
    assert incomplete_reason(scenarios / "terminated" / "checkpoint-2") is None
    assert not (scenarios / "terminated" / "checkpoint-3").exists()


@pytest.mark.parametrize(("name", "expected"), [("disk_full", [1]), ("disk_full_on_two", [1, 1])])
def test_a_full_disk_leaves_the_checkpoint_before(scenarios, name, expected):
    assert codes(scenarios, name) == expected
    text = said(scenarios, name, 0)
    assert "checkpoint-2' could not be written: " in text
    assert "File too large" in text
    assert "checkpoint-1' is complete" in text
    assert "Traceback" not in text
    assert incomplete_reason(scenarios / name / "checkpoint-1") is None
    assert incomplete_reason(scenarios / name / "checkpoint-2") is not None


def test_a_model_card_that_cannot_be_written_leaves_no_process_behind(scenarios):
    assert codes(scenarios, "no_card") == [0, 0]
    assert "The model card could not be written" in said(scenarios, "no_card", 0)
    assert incomplete_reason(scenarios / "no_card" / "checkpoint-3") is None


@pytest.mark.distributed
def test_sigterm_to_the_launcher_saves_a_checkpoint_to_go_on_from(tiny_model, tmp_path):
    ROWS.to_json(tmp_path / "rows.jsonl")
    run = tmp_path / "run"
    options = {
        "model_name_or_path": tiny_model, "dataset_name": tmp_path / "rows.jsonl", "output_dir": run,
        "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 8, "use_cpu": "true",
        "bf16": "false", "report_to": "none", "save_steps": 1, "max_steps": 500, "resume_from_checkpoint": "auto",
    }  # fmt: skip
    flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu_2proc.yaml"]
    command += ["-m", "hpt_trl.train", *flags]
    last = 1
    # The second time the run goes on where the first was stopped.
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            await_path(run / f"checkpoint-{last + 1}", limit=600)
            process.terminate()
            errors = process.communicate(timeout=600)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        stopped, before = max(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")), last
        assert stopped > before
        assert process.returncode != 0
        assert f"SIGTERM: saving a checkpoint at step {stopped}, then exiting with code 143" in errors
        assert incomplete_reason(run / f"checkpoint-{stopped}") is None
        last = stopped
    history = pd.read_parquet(run / "gate.parquet")
    assert history["step"].unique().tolist() == list(range(last))
    assert not history.duplicated(["step", "prompt_id"]).any()
