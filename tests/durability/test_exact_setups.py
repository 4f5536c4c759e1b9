"""A resume is exact with every kind of optimizer, scheduler, loss, adapter and stream: one small run each."""

import pytest
from datasets import Dataset, IterableDataset, load_dataset
from peft import IA3Config, LoHaConfig, LoraConfig, VeraConfig
from transformers import SchedulerType

from tests.durability.test_resume import differences_after_resuming
from tests.tiny import ROWS
from tests.trainer.test_gate_off import LOSS_TYPES

# The checkpoint lies between two generations.
SHORT = {"max_steps": 4, "save_steps": 3, "shuffle_dataset": False}
EVALUATED = {"trainer": {"eval_dataset": ROWS.select(range(3))}, "per_device_eval_batch_size": 4}
OPTIMIZERS = {
    "adamw_torch": {},
    "adamw_torch_fused": {},
    "adafactor": {},
    "adagrad": {},
    "rmsprop": {"optim_args": "momentum=0.9"},
    "sgd": {"optim_args": "momentum=0.9"},
}
SCHEDULERS = {
    "cosine_with_min_lr": {"lr_scheduler_kwargs": {"min_lr": 1e-3}},
    "cosine_warmup_with_min_lr": {"lr_scheduler_kwargs": {"min_lr": 1e-3}},
    "warmup_stable_decay": {"lr_scheduler_kwargs": {"num_decay_steps": 2}, "warmup_steps": 1},
    "reduce_lr_on_plateau": {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", **EVALUATED},
    "greedy": {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", **EVALUATED},
}
TARGETS = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
ADAPTERS = {
    "lora": LoraConfig(r=2, lora_dropout=0.1, **TARGETS),
    "dora": LoraConfig(r=2, use_dora=True, **TARGETS),
    "rank_stabilized": LoraConfig(r=2, use_rslora=True, modules_to_save=["lm_head"], **TARGETS),
    "loha": LoHaConfig(r=2, **TARGETS),
    "vera": VeraConfig(r=2, **TARGETS),
    "ia3": IA3Config(feedforward_modules=[], **TARGETS),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(tiny_model, tmp_path, name):
    assert differences_after_resuming(tiny_model, tmp_path, 3, optim=name, **OPTIMIZERS[name], **SHORT) == []


@pytest.mark.parametrize("name", [scheduler.value for scheduler in SchedulerType])
def test_schedulers(tiny_model, tmp_path, name):
    options = {"warmup_steps": 2, "lr_scheduler_type": name} | SCHEDULERS.get(name, {})
    assert differences_after_resuming(tiny_model, tmp_path, 3, **options, **SHORT) == []


@pytest.mark.parametrize("name", LOSS_TYPES)
def test_losses(tiny_model, tmp_path, name):
    options = {"loss_type": name, "importance_sampling_level": "sequence" if name == "luspo" else "token"}
    assert differences_after_resuming(tiny_model, tmp_path, 3, **options, **SHORT) == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(tiny_model, tmp_path, name):
    options = {"trainer": {"peft_config": ADAPTERS[name]}}
    assert differences_after_resuming(tiny_model, tmp_path, 3, **options, **SHORT) == []


def sharded(folder) -> IterableDataset:
    return ROWS.to_iterable_dataset(num_shards=4)


def generated(folder) -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(ROWS.to_list()))


def of_a_file(folder) -> IterableDataset:
    Dataset.to_json(ROWS, folder / "rows.jsonl")
    return load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train", streaming=True)


# In the first pass over the stream, and at the end of it.
@pytest.mark.parametrize("step", [3, 4])
@pytest.mark.parametrize("stream", [sharded, generated, of_a_file])
def test_streams(tiny_model, tmp_path, stream, step):
    options = SHORT | {"rows": stream(tmp_path), "max_steps": 6, "save_steps": step, "shuffle_dataset": step == 3}
    assert differences_after_resuming(tiny_model, tmp_path, step, **options) == []
