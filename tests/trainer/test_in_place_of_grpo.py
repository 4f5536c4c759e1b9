"""HPTTrainer in the place of GRPOTrainer: the same options, rewards and data, bitwise with the gate off.

And with half of the gate on demonstrations each of them learns. More options are in `test_gate_off.py`, models in
`test_model_families.py` and `test_vision.py`, adapters in `test_adapters.py`, tools in `test_tools.py`.
"""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config

from tests.tiny import ROWS, make_trainer, parameters, parity_reward

FOUR = ROWS.select(range(4))


def length_reward(completion_ids, **kwargs):
    return [len(ids) / 8 for ids in completion_ids]


def sometimes_none(completion_ids, **kwargs):
    """A reward function for some tasks only."""
    return [None if ids[0] % 2 else 1.0 for ids in completion_ids]


async def awaited_reward(completion_ids, **kwargs):
    return parity_reward(completion_ids)


def solution_reward(completion_ids, solution, **kwargs):
    """A verdict that depends on a column of the data."""
    return [float((sum(ids) + int(gold)) % 2) for ids, gold in zip(completion_ids, solution, strict=True)]


def conversations(row):
    return {"prompt": [{"role": "user", "content": row["prompt"]}]}


def reward_model(folder):
    """A tiny model that judges texts, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=tokenizer.pad_token_id, num_labels=1, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32), tokenizer


CASES = {
    "conversations": {"rows": FOUR.map(conversations)},
    "stream": {"rows": FOUR.to_iterable_dataset()},
    "column_of_the_data": {"reward": solution_reward},
    "awaited_reward": {"reward": awaited_reward},
    "several_rewards": {"reward": [parity_reward, length_reward, sometimes_none], "reward_weights": [1.0, 0.5, 0.2]},
    "normalized_each": {
        "reward": [parity_reward, length_reward],
        "multi_objective_aggregation": "normalize_then_sum",
    },
    "scaled_over_the_batch": {"scale_rewards": "batch"},
    "evaluation": {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "moving_reference": {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
    "masked_truncation": {"mask_truncated_completions": True, "max_completion_length": 100},
    "two_sided_clipping": {"delta": 2.0, "num_iterations": 2},
    "sequence_ratios": {"importance_sampling_level": "sequence", "num_iterations": 2},
    "off_policy_mask": {"off_policy_mask_threshold": 0.5, "num_iterations": 2},
    "high_entropy_tokens": {"top_entropy_quantile": 0.5},
    "adaptive_entropy": {"use_adaptive_entropy": True, "entropy_target": 1.0},
    "head_in_float32": {"cast_lm_head_to_fp32": True},
    "padded_to_a_multiple": {"pad_to_multiple_of": 8},
    "sampling": {"top_p": 0.9, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1},
    "table_of_completions": {"log_completions": True},
    "reward_model": {"reward": reward_model},
}
QUICK = ("conversations", "several_rewards", "evaluation")
ALL = [case if case in QUICK else pytest.param(case, marks=pytest.mark.distributed) for case in CASES]


def case_trainer(case, model, folder, **options):
    own = {"rows": FOUR, "max_steps": 2} | CASES[case] | options
    arguments = dict(own.pop("trainer", {}))
    if case == "evaluation":
        arguments["eval_dataset"] = FOUR
    if isinstance(own.get("reward"), list) and own.get("gate") != "off" and options.get("hpt", True):
        own["gate_reward"] = "parity_reward"
    if own.get("reward") is reward_model:
        judge, tokenizer = reward_model(model)
        own["reward"], arguments["reward_processing_classes"] = judge, tokenizer
    return make_trainer(model, folder, trainer=arguments, **own)


@pytest.mark.parametrize("case", ALL)
def test_gate_off_is_grpo(tiny_model, tmp_path, case):
    def trained(**options):
        trainer = case_trainer(case, tiny_model, tmp_path, **options)
        before = parameters(trainer).clone()
        trainer.train()
        assert not torch.equal(parameters(trainer), before)
        return parameters(trainer)

    assert torch.equal(trained(gate="off"), trained(hpt=False))


@pytest.mark.parametrize("case", ALL)
def test_half_a_gate_learns(tiny_model, tmp_path, case):
    def half(solve_rate_P, step):
        return torch.full_like(solve_rate_P, 0.5), torch.full_like(solve_rate_P, 0.5)

    # Solved or not, a prompt trains on both.
    trainer = case_trainer(case, tiny_model, tmp_path, trainer={"gate": half}, max_steps=5)
    trainer.train()
    logged = [entry["demonstrations/nll"] for entry in trainer.state.log_history if "demonstrations/nll" in entry]
    assert len(logged) >= 3
    assert logged[-1] < logged[0]
    assert parameters(trainer).isfinite().all()
