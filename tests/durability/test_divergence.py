"""A run that diverges keeps a checkpoint from before, and its advice works when it is followed to the letter."""

import json
import re
import shlex

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpt_trl import HPTConfig
from hpt_trl.commands.train import main
from hpt_trl.common.errors import LocalRunError, RunError
from hpt_trl.durability.checkpoints import resolve_resume_checkpoint
from hpt_trl.durability.divergence import Divergence, rescale_learning_rates
from hpt_trl.durability.markers import damage_reason, divergence_reason, mark_complete, mark_diverged
from tests.durability.fault_worker import AtStep
from tests.tiny import ROWS, make_trainer, parameters, rollouts_gate

SAVING = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
TOO_FAST = {"optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 1e20, "lr_scheduler_type": "constant_with_warmup"}


def names(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def diverged(folder):
    return [name for name in names(folder) if divergence_reason(folder / name)]


def command(model, folder, **options):
    """Arguments of `hpt-trl train` on the tiny model."""
    ROWS.to_json(folder / "rows.jsonl")
    given = {
        "model_name_or_path": model, "dataset_name": folder / "rows.jsonl", "output_dir": folder / "run",
        "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8, "use_cpu": True,
        "bf16": False, "report_to": "none", "max_steps": 4, "disable_tqdm": True, "logging_steps": 1, "save_steps": 1,
        "save_total_limit": 1, **options,
    }  # fmt: skip
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


# The first step of a warm-up has a learning rate of 0: checkpoint-1 holds the model as it came.
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_advice_after_a_divergence_works_to_the_letter(tiny_model, tmp_path, capsys, warmup_steps):
    arguments = command(tiny_model, tmp_path, warmup_steps=warmup_steps, **TOO_FAST)
    with pytest.raises(SystemExit, match="1"):
        main(arguments)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("hpt-trl train: error: The policy has diverged: after step ")
    assert ("checkpoint-1' is from before" in error) == (warmup_steps > 0)
    assert len(diverged(tmp_path / "run")) == 1
    advised = re.search(r"add `([^`]+)` to the command", error)[1]
    main([*arguments, *shlex.split(advised)])
    assert "Model and gate.parquet saved" in capsys.readouterr().out
    assert all(weight.isfinite().all() for weight in load_file(tmp_path / "run" / "model.safetensors").values())
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    # The learning rate of the checkpoint does not come back, also where it is the scheduler's.
    assert state["log_history"][-2]["learning_rate"] <= 5e-6
    assert names(tmp_path / "run") == ["checkpoint-4"]


def poison(trainer, value):
    """Make one weight infinite or huge."""

    def act():
        with torch.no_grad():
            next(trainer.model.parameters())[0, 0] = value

    return act


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_checkpoint_of_weights_that_are_not_finite_says_so_and_is_not_the_only_one(
    tiny_model, tmp_path, value, caplog
):
    trainer = make_trainer(tiny_model, tmp_path, max_steps=6, **SAVING)
    trainer.add_callback(AtStep(3, poison(trainer, value)))
    with pytest.raises(RunError, match=r"after step 3, its parameter '.*' is not finite\. '.*checkpoint-2' is from"):
        trainer.train()
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    assert diverged(tmp_path) == ["checkpoint-3"]
    assert damage_reason(tmp_path / "checkpoint-3") is None
    assert resolve_resume_checkpoint("auto", tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-3': its policy has diverged (its parameter" in caplog.text
    # Named explicitly, it is loaded, and ends the run before it begins.
    with pytest.raises(RunError, match=r"after step 3, its parameter .* is not finite"):
        make_trainer(tiny_model, tmp_path, max_steps=6, **SAVING).train(str(tmp_path / "checkpoint-3"))
    assert "Resuming anyway because it was named explicitly" in caplog.text


def test_weights_that_are_not_finite_at_the_end_are_an_error(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, max_steps=3)
    trainer.add_callback(AtStep(3, poison(trainer, float("inf"))))
    with pytest.raises(RunError, match=r"after step 3, its parameter .* There is no checkpoint from before"):
        trainer.train()


def exploding(since):
    """A gate whose demonstrations have gradients that are not finite, since a step."""

    def gate(rate_P, step):
        return torch.zeros_like(rate_P), torch.full_like(rate_P, 1.0 if step < since else 3e38)

    return gate


def test_checkpoints_of_a_run_that_is_stuck_are_marked_and_the_one_from_before_is_kept(tiny_model, tmp_path):
    options = SAVING | {"max_steps": 10, "max_skipped_steps_in_row": 3}
    trainer = make_trainer(tiny_model, tmp_path, trainer={"gate": exploding(3)}, **options)
    with pytest.raises(
        RunError, match=r"3 consecutive optimizer steps, up to step 5, is not finite .*checkpoint-2' is"
    ):
        trainer.train()
    # Steps 3 and 4 changed nothing: checkpoint-3 was deleted for checkpoint-5, which has the same weights.
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-5"]
    assert diverged(tmp_path) == ["checkpoint-5"]
    again = make_trainer(tiny_model, tmp_path, trainer={"gate": exploding(99)}, **options, learning_rate=1e-3)
    again.train("auto")
    assert names(tmp_path) == ["checkpoint-10"]
    assert diverged(tmp_path) == []


@pytest.mark.parametrize("learning_rate", [1e-2, 1e-3])
def test_skipped_steps_before_a_resume_count_if_nothing_has_changed(tiny_model, tmp_path, learning_rate):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 8, "max_skipped_steps_in_row": 3}
    with pytest.raises(RunError):
        make_trainer(tiny_model, tmp_path, trainer={"gate": exploding(2)}, **options).train()
    assert diverged(tmp_path) == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]
    trainer = make_trainer(
        tiny_model, tmp_path, trainer={"gate": exploding(2)}, **options | {"learning_rate": learning_rate}
    )
    # Two steps were skipped before checkpoint-4.
    with pytest.raises(RunError, match=rf"up to step {4 if learning_rate == 1e-2 else 6},"):
        trainer.train(str(tmp_path / "checkpoint-4"))


def test_the_limit_holds_again_once_a_step_has_shown_that_the_new_checkpoint_can_be_trained_on(tiny_model, tmp_path):
    seen = []
    trainer = make_trainer(tiny_model, tmp_path, max_steps=4, **SAVING)
    for step in (2, 3, 4):
        trainer.add_callback(AtStep(step, lambda: seen.append(names(tmp_path))))
    trainer.train()
    # Before the checkpoint of the step is written, and after the gradient of the step was good.
    assert seen == [["checkpoint-1"], ["checkpoint-2"], ["checkpoint-3"]]
    assert names(tmp_path) == ["checkpoint-4"]


def test_marks_stay_within_the_steps_of_the_run(tmp_path):
    for step in (1, 2, 3, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        mark_complete(tmp_path / f"checkpoint-{step}", "its parameter 'w' is not finite" if step == 2 else None)
    args = HPTConfig(str(tmp_path), use_cpu=True, bf16=False, learning_rate=1e-6)
    divergence = Divergence(args)
    divergence.in_row = 1
    error = str(divergence.error("It diverged.", 3))
    assert f"It diverged. '{tmp_path}/checkpoint-1' is from before." in error
    assert "--learning_rate 1e-07`" in error
    # Checkpoint 9 is of an earlier continuation.
    assert diverged(tmp_path) == ["checkpoint-2", "checkpoint-3"]
    assert "its parameter 'w'" in divergence_reason(tmp_path / "checkpoint-2")
    for step in (1, 9):
        mark_diverged(tmp_path / f"checkpoint-{step}", "tested")
    with pytest.raises(RunError, match="no complete checkpoint"):
        resolve_resume_checkpoint(True, tmp_path)


def test_a_diverged_policy_is_not_pushed(tiny_model, tmp_path, monkeypatch, caplog):
    pushed = []
    monkeypatch.setattr("trl.GRPOTrainer._push_from_checkpoint", lambda self, folder: pushed.append(folder))
    trainer = make_trainer(tiny_model, tmp_path)
    for reason in (None, "its parameter 'w' is not finite"):
        trainer._push_from_checkpoint(str(tmp_path))
        trainer._push_saved(reason)
    assert pushed == [str(tmp_path)]
    assert "is not pushed, because the policy has diverged: its parameter 'w' is not finite" in caplog.text


def test_learning_rates_of_a_checkpoint_are_rescaled():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": 8.0}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 4.0
    rescale_learning_rates(optimizer, scheduler, 0.25)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert scheduler.get_last_lr() == [1.0]
    scheduler.step()
    # A quarter of 8, over 3.
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 / 3)


def test_a_policy_that_nothing_can_be_sampled_from_ends_in_one_paragraph(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, max_steps=3, **SAVING)
    trainer.add_callback(AtStep(2, poison(trainer, 3e38)))
    trainer.add_callback(AtStep(2, lambda: trainer.model.lm_head.weight.data.fill_(3e38)))
    with pytest.raises(
        LocalRunError, match=r"after step 2, nothing can be sampled \(probability tensor .*checkpoint-1'"
    ):
        trainer.train()
    assert parameters(trainer).isfinite().all()
    assert diverged(tmp_path) == ["checkpoint-2"]


def test_a_model_with_weights_that_are_not_finite_is_refused(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "run")
    trainer.save_model(str(tmp_path / "model"))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"cannot be trained: its parameter 'model.norm.weight' is not finite"):
        make_trainer(str(tmp_path / "model"), tmp_path / "run", trainer={"gate": rollouts_gate})
