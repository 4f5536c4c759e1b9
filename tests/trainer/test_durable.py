"""The durable base class alone: plain GRPO, no gate and no demonstrations."""

import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from hpt_trl.common.errors import RunError
from hpt_trl.durability.config import DurableGRPOConfig
from hpt_trl.trainer.durable import DurableGRPOTrainer
from tests.durability.kill_and_resume import differences, log_without_times
from tests.tiny import DEFAULTS, RECIPE, ROWS, parameters, parity_reward

OPTIONS = {
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "steps_per_generation": 8,
    "shuffle_dataset": True,
}


def build(model, folder, reward=parity_reward, durable=True, **options):
    config, kind = (DurableGRPOConfig, DurableGRPOTrainer) if durable else (GRPOConfig, GRPOTrainer)
    args = config(**(DEFAULTS | RECIPE | OPTIONS | {"output_dir": str(folder)} | options))
    return kind(model, reward, args, ROWS.remove_columns("demonstration"))


def test_it_trains_bitwise_as_grpo_trainer(tiny_model, tmp_path):
    ends = []
    for durable in (True, False):
        trainer = build(tiny_model, tmp_path / str(durable), durable=durable)
        trainer.train()
        ends.append(parameters(trainer))
    assert torch.equal(*ends)


def test_it_resumes_exactly_between_two_generations(tiny_model, tmp_path):
    ends = []
    for name, checkpoint in (("complete", None), ("resumed", str(tmp_path / "complete" / "checkpoint-3"))):
        trainer = build(tiny_model, tmp_path / name)
        trainer.train(checkpoint)
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        ends.append((state, log_without_times(trainer.state.log_history), pd.DataFrame()))
    assert differences(*ends) == []


def test_it_stops_on_sigterm_with_a_checkpoint(tiny_model, tmp_path):
    class Terminate(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                signal.raise_signal(signal.SIGTERM)

    trainer = build(tiny_model, tmp_path, save_strategy="no")
    trainer.add_callback(Terminate())
    with pytest.raises(SystemExit) as stop:
        trainer.train()
    assert stop.value.code == 143
    assert (tmp_path / "checkpoint-2" / "hpt_complete.json").is_file()


def test_reward_functions_stay_the_users_own(tiny_model, tmp_path):
    def fails(completions, **kwargs):
        raise ZeroDivisionError("mine")

    trainer = build(tiny_model, tmp_path, reward=[parity_reward, fails])
    assert trainer.reward_funcs == [parity_reward, fails]
    with pytest.raises(ZeroDivisionError, match="mine"):
        trainer.reward_funcs[1](completions=["a"])
    with pytest.raises(RunError, match="The reward function 'fails' raised ZeroDivisionError: mine"):
        trainer.train()
    assert trainer.reward_funcs == [parity_reward, fails]


def test_options_are_what_they_were_after_a_save(tiny_model, tmp_path):
    trainer = build(tiny_model, tmp_path, save_total_limit=2)
    trainer.train()
    assert trainer.args.save_total_limit == 2
    assert sorted(Path(path).name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_a_token_that_the_model_has_no_embedding_for_is_refused(tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"the model has a vocabulary of .* its folder lacks tokenizer_config\.json"):
        build(str(model), tmp_path / "run")
