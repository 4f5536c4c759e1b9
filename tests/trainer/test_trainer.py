"""What a TRL user meets: data in every form, evaluation, metrics, history, guards, LoRA."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from hpt_trl import HPTConfig, HPTTrainer
from hpt_trl.trainer.checks import check_launch
from tests.tiny import ROWS, make_trainer, parameters, parity_reward


def never_right(completion_ids, **kwargs):
    return [0.0] * len(completion_ids)


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_metrics_and_history_tell_what_every_prompt_learned_from(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=0.25)
    trainer.train()
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert list(history.columns) == ["step", "prompt_id", "solve_rate", "rollouts", "demonstration", "off_policy"]
    assert history.groupby("step").size().to_dict() == {0: 4, 1: 4, 2: 4}
    assert history["prompt_id"].nunique() == 12
    assert (history["demonstration"] == (history["solve_rate"] <= 0.25)).all()
    assert (history["rollouts"] == (history["solve_rate"] > 0.25)).all()
    assert 0 < history["demonstration"].mean() < 1
    for step, rows in history.groupby("step"):
        assert logged(trainer, "hpt/solve_rate")[step] == pytest.approx(rows["solve_rate"].mean())
        assert logged(trainer, "hpt/demonstration_share")[step] == pytest.approx(rows["demonstration"].mean())
        assert logged(trainer, "hpt/none_solved")[step] == pytest.approx((rows["solve_rate"] == 0).mean())
        assert logged(trainer, "hpt/all_solved")[step] == pytest.approx((rows["solve_rate"] == 1).mean())


def test_nll_and_length_are_those_of_the_demonstrations_the_step_learned_from(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, reward=never_right, max_steps=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), trainer.processing_class
    trainer.train()
    nll, lengths = 0.0, []
    for row in ROWS.select(range(4)):
        prompt, answer = (tokenizer(row[key])["input_ids"] for key in ("prompt", "demonstration"))
        answer.append(tokenizer.eos_token_id)
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        nll += cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        lengths.append(len(answer))
    assert logged(trainer, "demonstrations/nll")[0] == pytest.approx(nll / sum(lengths), rel=1e-5)
    assert logged(trainer, "demonstrations/length") == [sum(lengths) / 4]


def test_prompts_without_a_demonstration_stay_on_rl_and_are_counted(tiny_model, tmp_path):
    rows = Dataset.from_list([row | {"demonstration": [None, "", "  ", "so"][i % 4]} for i, row in enumerate(ROWS)])
    trainer = make_trainer(tiny_model, tmp_path, rows=rows, reward=never_right, max_steps=1)
    trainer.train()
    assert logged(trainer, "demonstrations/missing") == [3]
    assert pd.read_parquet(tmp_path / "gate.parquet")["demonstration"].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("overflow", "cut", "refused", "share"), [("cut", 4, 0, 1.0), ("refuse", 0, 4, 0.0)])
def test_a_demonstration_over_the_limit_is_cut_or_refused(tiny_model, tmp_path, overflow, cut, refused, share):
    options = {"max_demonstration_length": 3, "demonstration_overflow": overflow, "max_steps": 1}
    trainer = make_trainer(tiny_model, tmp_path, reward=never_right, **options)
    trainer.train()
    assert logged(trainer, "demonstrations/cut") == [cut]
    assert logged(trainer, "demonstrations/refused") == [refused]
    assert logged(trainer, "hpt/demonstration_share") == [share]
    if cut:
        assert logged(trainer, "demonstrations/length") == [3]


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: {"role": "assistant", "content": text},
        lambda text: [{"role": "assistant", "content": text}],
    ],
    ids=["text", "message", "messages"],
)
def test_conversational_prompts_take_a_demonstration_in_every_form(tiny_model, tmp_path, form):
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "demonstration": form(row["demonstration"])}
        for row in ROWS
    ]
    trainer = make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows), reward=never_right, max_steps=1)
    trainer.train()
    # "so 0", "so 2!", "so 4!!", "so 6!!!" and EOS each: 5 + 6 + 7 + 8 tokens in four.
    assert logged(trainer, "demonstrations/length") == [26 / 4]
    assert logged(trainer, "hpt/demonstration_share") == [1.0]


def test_evaluation_judges_rollouts_and_trains_on_nothing(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model, tmp_path, gate_threshold=1.0, per_device_eval_batch_size=8, trainer={"eval_dataset": ROWS}
    )
    before = parameters(trainer).clone()
    metrics = trainer.evaluate()
    assert 0 < metrics["eval_hpt/solve_rate"] < 1
    assert "eval_demonstrations/nll" not in metrics
    assert torch.equal(parameters(trainer), before)
    assert not (tmp_path / "gate.parquet").exists()


def test_evaluation_groups_by_its_own_number_of_generations(tiny_model, tmp_path):
    def first_of_two(completion_ids, **kwargs):
        return [float(row % 2 == 0) for row in range(len(completion_ids))]

    options = {"num_generations_eval": 2, "per_device_eval_batch_size": 8, "trainer": {"eval_dataset": ROWS}}
    metrics = make_trainer(tiny_model, tmp_path, reward=first_of_two, **options).evaluate()
    assert metrics["eval_hpt/solve_rate"] == 0.5
    assert (metrics["eval_hpt/all_solved"], metrics["eval_hpt/none_solved"]) == (0.0, 0.0)

    def every_second_prompt(completion_ids, **kwargs):
        return [1.0, 1.0, 0.0, 0.0] * (len(completion_ids) // 4)

    metrics = make_trainer(tiny_model, tmp_path, reward=every_second_prompt, **options).evaluate()
    assert metrics["eval_hpt/all_solved"] == 0.5


def test_a_malformed_demonstration_is_refused_and_its_prompt_stays_on_rl(tiny_model, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": str(i)}], "demonstration": [{"role": role, "content": "x"}]}
        for i, role in enumerate(["assistant", "user"] * 8)
    ]
    trainer = make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows), reward=never_right, max_steps=1)
    trainer.train()
    assert logged(trainer, "demonstrations/refused") == [2]
    assert pd.read_parquet(tmp_path / "gate.parquet")["demonstration"].tolist() == [1, 0, 1, 0]


def test_a_demonstration_cut_before_its_first_trained_token_is_refused(tiny_model, tmp_path):
    turns = [{"role": "tool", "content": "a long answer"}, {"role": "assistant", "content": "so"}]
    rows = [{"prompt": [{"role": "user", "content": str(i)}], "demonstration": turns} for i in range(16)]
    options = {"rows": Dataset.from_list(rows), "reward": never_right, "max_demonstration_length": 4, "max_steps": 1}
    trainer = make_trainer(tiny_model, tmp_path, **options)
    trainer.train()
    assert logged(trainer, "demonstrations/refused") == [4]


def test_unscorable_rollouts_count_in_no_solve_rate(tiny_model, tmp_path):
    # Prompt 0: nothing scorable, stays on RL. Others: one right of two scorable.
    def some(completion_ids, **kwargs):
        return [None if row < 4 or row % 4 < 2 else float(row % 2) for row in range(len(completion_ids))]

    make_trainer(tiny_model, tmp_path, reward=some, gate_threshold=0.5, max_steps=1).train()
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert history["solve_rate"].isna().tolist() == [True, False, False, False]
    assert history["solve_rate"].tolist()[1:] == [0.5, 0.5, 0.5]
    assert history["demonstration"].tolist() == [0, 1, 1, 1]


def test_the_gate_listens_to_one_named_reward(tiny_model, tmp_path):
    def bonus(completion_ids, **kwargs):
        return [5.0] * len(completion_ids)

    rewards = [bonus, never_right]
    with pytest.raises(ValueError, match=r"one of \['bonus', 'never_right'\]; got None"):
        make_trainer(tiny_model, tmp_path, reward=rewards)
    trainer = make_trainer(tiny_model, tmp_path, reward=rewards, gate_reward="never_right", max_steps=1)
    trainer.train()
    assert logged(trainer, "hpt/solve_rate") == [0.0]


def test_a_step_above_the_norm_limit_is_skipped_and_counted(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=1.0, skip_grad_norm_above=1e-6)
    before = parameters(trainer).clone()
    trainer.train()
    assert logged(trainer, "hpt/skipped_steps") == [1.0, 2.0, 3.0]
    assert torch.equal(parameters(trainer), before)
    assert not any(trainer.optimizer.state.values())  # no moment moved either
    assert all(norm > 1e-6 for norm in logged(trainer, "grad_norm"))


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(tiny_model, tmp_path):
    # The weight itself is finite; its product with the loss overflows float32.
    def exploding(rate_P, step):
        return torch.zeros_like(rate_P), torch.full_like(rate_P, 3e38 if step == 1 else 1.0)

    trainer = make_trainer(tiny_model, tmp_path, trainer={"gate": exploding})
    trainer.train()
    assert logged(trainer, "hpt/skipped_steps") == [0.0, 1.0, 1.0]
    assert parameters(trainer).isfinite().all()
    assert not math.isfinite(logged(trainer, "grad_norm")[1])


def test_lora_trains_the_adapter_on_both_parts(tiny_model, tmp_path):
    peft_config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(
        tiny_model, tmp_path, gate="linear", temperature=0.5, beta=0.1, trainer={"peft_config": peft_config}
    )
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, parameter in trainer.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)


def test_lora_learns_from_demonstrations_alone(tiny_model, tmp_path):
    peft_config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(tiny_model, tmp_path, gate_threshold=1.0, trainer={"peft_config": peft_config}, max_steps=12)
    trainer.train()
    # The first and the last time the same four prompts came by.
    nlls = logged(trainer, "demonstrations/nll")
    assert nlls[8] < nlls[0]


def test_resumed_history_holds_every_step_once(tiny_model, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "gate_threshold": 0.25}
    make_trainer(tiny_model, tmp_path, **options).train()
    make_trainer(tiny_model, tmp_path, max_steps=4, **options).train(str(tmp_path / "checkpoint-2"))
    history = pd.read_parquet(tmp_path / "gate.parquet")
    assert history.groupby("step").size().to_dict() == {0: 4, 1: 4, 2: 4, 3: 4}


def test_training_twice_starts_the_history_anew(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path)
    trainer.train()
    trainer.train()
    assert pd.read_parquet(tmp_path / "gate.parquet").groupby("step").size().to_dict() == {0: 4, 1: 4, 2: 4}


def test_gate_off_asks_for_no_reward_by_name(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, reward=[parity_reward, never_right], gate="off", max_steps=1)
    trainer.train()
    assert "hpt/solve_rate" not in trainer.state.log_history[0]


def test_a_limit_on_the_gradient_norm_is_refused_under_deepspeed(tmp_path):
    args = HPTConfig(str(tmp_path), use_cpu=True, bf16=False, skip_grad_norm_above=1.0)
    with pytest.raises(ValueError, match="does not work under DeepSpeed"):
        check_launch(args, SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, num_processes=2))


def test_a_config_of_grpo_is_refused_by_name(tiny_model, tmp_path):
    args = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(TypeError, match="takes an HPTConfig, got GRPOConfig"):
        HPTTrainer(tiny_model, parity_reward, args, ROWS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Dataset.from_dict({"prompt": [], "demonstration": []}), "is empty: 0 rows"),
        (Dataset.from_dict({"question": ["?"], "demonstration": ["!"]}), "no 'prompt' column"),
        (Dataset.from_dict({"prompt": ["?"]}), "No row of the training data has a demonstration"),
        (Dataset.from_dict({"prompt": ["?"], "demonstration": [""]}), "No row of the training data has a demonst"),
        (Dataset.from_dict({"prompt": ["?"], "demonstration": ["!"]}), "One generation needs 4 prompts"),
        (Dataset.from_dict({"prompt": ["?"]}).to_iterable_dataset(), "No row of the training data has a demonst"),
    ],
)
def test_data_that_hpt_cannot_use_is_refused(tiny_model, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, rows=rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_threshold": 1.5}, r"gate_threshold must be in \[0, 1\], got 1.5"),
        ({"gate_threshold": -0.1}, r"gate_threshold must be in \[0, 1\], got -0.1"),
        ({"gate_threshold": 0.5, "gate_off_policy_threshold": 0.25}, "must be above gate_threshold"),
        ({"gate_off_policy_threshold": 1.0}, "below 1, got 1.0"),
        ({"sft_normalization": "token", "steps_per_generation": 8}, "every step has a generation of its own"),
        ({"gate": "linear", "gate_threshold": 0.5}, "has no threshold"),
        ({"gate": "nonsense"}, "gate must be 'switch', 'linear', 'table' or 'off'"),
        ({"gate": "table"}, "belong together"),
        ({"gate": "table", "gate_table": {0: [0, 1]}}, "0 to 4 solved rollouts"),
        ({"sft_weight": -1.0}, "sft_weight must be finite and at least 0"),
        ({"sft_normalization": "row"}, "sft_normalization must be"),
        ({"demonstration_overflow": "drop"}, "demonstration_overflow must be"),
        ({"max_demonstration_length": 0}, "at least 1 token"),
        ({"skip_grad_norm_above": 0.0}, "must be above 0"),
        ({"remove_unused_columns": True}, "would drop the 'demonstration' column"),
        ({"num_generations": 1}, "at least 2 generations"),
    ],
)
def test_options_out_of_range_are_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, **options)


def test_a_gate_beside_a_named_gate_is_refused(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="got a gate as an argument and another one in args"):
        make_trainer(tiny_model, tmp_path, gate_threshold=0.5, trainer={"gate": lambda rate_P, step: (rate_P, rate_P)})


def test_a_demonstration_that_the_template_refuses_leaves_its_prompt_on_rollouts(tiny_model, tmp_path):
    turns = [{"role": "tool", "content": "4"}, {"role": "assistant", "content": "four"}]
    rows = [{"prompt": [{"role": "user", "content": str(i)}], "demonstration": turns} for i in range(16)]
    trainer = make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows), reward=never_right, max_steps=1)
    trainer.processing_class.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
        "{{ m['content'] }}<eos>\n{% endfor %}"
    )
    trainer.train()
    assert logged(trainer, "demonstrations/refused") == [4.0]
    assert (pd.read_parquet(tmp_path / "gate.parquet")["rollouts"] == 1).all()


def test_the_old_name_of_an_option_is_a_deprecated_alias(tmp_path):
    with pytest.warns(FutureWarning, match="Use `skip_zero_signal_rollouts` instead"):
        args = HPTConfig(str(tmp_path), use_cpu=True, bf16=False, drop_silent_rows=False)
    assert args.skip_zero_signal_rollouts is False
    assert args.drop_silent_rows is None
