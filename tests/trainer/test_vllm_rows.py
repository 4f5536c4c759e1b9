"""On TRL's path for rollouts of vLLM: rewards are known first, and only rows with signal get old log-probabilities."""

import pytest
import torch
from trl import GRPOTrainer

from tests.tiny import GradientCallback, make_trainer, relative_error, rollouts_gate, scored_rollouts


def make_as_with_vllm(tiny_model, tmp_path, **options):
    """A trainer of one step on rollouts as vLLM's."""
    keywords = {"rollout_func": scored_rollouts} | options.pop("trainer", {})
    return make_trainer(tiny_model, tmp_path, trainer=keywords, max_grad_norm=0.0, max_steps=1, **options)


def hinted_reward(hint, log_extra, log_metric, **kwargs):
    """Rewards by a column that only `rollout_func` returns; two of four prompts of the first step have signal."""
    rewards = [float(value % 3 == 0 and row // 4 < 2) for row, value in enumerate(hint)]
    log_extra("hint", hint)
    log_metric("hint", sum(hint))
    return rewards


def trained(tiny_model, tmp_path, monkeypatch, **options):
    """One step: its gradient, its log, the batch that TRL returned, and the rows of which logps were computed."""
    batches, rows, calls = [], [], []
    upstream = GRPOTrainer._get_per_token_logps_and_entropies

    def count(self, model, input_ids, *args, **kwargs):
        if not torch.is_grad_enabled():
            rows.append(len(input_ids))
        return upstream(self, model, input_ids, *args, **kwargs)

    score = options.pop("reward", hinted_reward)

    def reward(**kwargs):
        calls.append(len(kwargs["completions"]))
        return score(**kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", count)
    options = {"loss_type": "grpo", "reward": reward} | options
    trainer = make_as_with_vllm(tiny_model, tmp_path, **options)
    generate = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batches.append(generate(inputs)) or batches[-1]
    callback = GradientCallback()
    trainer.add_callback(callback)
    trainer.train()
    monkeypatch.undo()
    assert calls == [16]  # once per generation
    return callback.gradient, trainer.state.log_history[0], batches[0], sum(rows)


MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


@pytest.mark.parametrize("mode", MODES)
def test_with_vllm_a_silent_row_has_ratio_1_and_costs_nothing(tiny_model, tmp_path, monkeypatch, mode):
    options = {"vllm_importance_sampling_mode": mode}
    gradient, log, batch, rows = trained(tiny_model, tmp_path, monkeypatch, **options)
    kept, all_log, all_rows_batch, all_rows = trained(
        tiny_model, tmp_path, monkeypatch, skip_zero_signal_rollouts=False, **options
    )
    has_signal_B = batch["advantages"] != 0
    assert 0 < rows == has_signal_B.sum() == round(16 * log["hpt/signal_share"]) <= 8
    assert all_rows == 16
    ratios, all_ratios = batch["importance_sampling_ratio"], all_rows_batch["importance_sampling_ratio"]
    assert (ratios[~has_signal_B] == 1).all()
    assert torch.allclose(ratios[has_signal_B], all_ratios[has_signal_B])
    assert (all_ratios != 1).any(dim=1).all()
    assert not batch["old_per_token_logps"].isnan().any()
    assert relative_error(gradient, kept) < 1e-5
    # The metrics are those of the rows that were computed.
    mask = all_rows_batch["completion_mask"].bool() & has_signal_B.unsqueeze(1)
    differences = (all_rows_batch["old_per_token_logps"] - all_rows_batch["sampling_per_token_logps"]).abs()[mask]
    computed = all_ratios[mask] if mode.startswith("token") else all_ratios[has_signal_B]
    expected = {
        "sampling_logp_difference/mean": differences.mean(), "sampling_logp_difference/max": differences.max(),
        "importance_sampling_ratio/min": computed.min(), "importance_sampling_ratio/mean": computed.mean(),
        "importance_sampling_ratio/max": computed.max(),
    }  # fmt: skip
    for name, value in expected.items():
        assert log[f"sampling/{name}"] == pytest.approx(value.item(), rel=1e-5)
    assert log["hint"] == all_log["hint"]


def test_with_vllm_and_nothing_to_train_on_nothing_is_computed(tiny_model, tmp_path, monkeypatch):
    def demonstrations_gate(solve_rate_P, step):
        return torch.zeros_like(solve_rate_P), torch.ones_like(solve_rate_P)

    _, log, batch, rows = trained(tiny_model, tmp_path, monkeypatch, trainer={"gate": demonstrations_gate})
    assert rows == 0
    assert (batch["importance_sampling_ratio"] == 1).all()
    assert log["sampling/importance_sampling_ratio/mean"] is None
    assert log["demonstrations/nll"] > 0


def alternating(completions, **kwargs):
    """Every group has signal."""
    return [float(row % 2) for row in range(len(completions))]


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_with_vllm_and_nothing_silent_it_is_grpo(tiny_model, tmp_path, monkeypatch, aggregation):
    options = {"reward": alternating, "multi_objective_aggregation": aggregation}
    grpo, log, expected, _ = trained(tiny_model, tmp_path, monkeypatch, hpt=False, **options)
    for keywords in ({"gate": "off"}, {"trainer": {"gate": rollouts_gate}}):
        gradient, own_log, batch, rows = trained(tiny_model, tmp_path, monkeypatch, **options, **keywords)
        assert rows == 16
        for name in ("old_per_token_logps", "importance_sampling_ratio", "advantages"):
            assert torch.equal(batch[name], expected[name])
        assert {name: own_log[name] for name in log if name.startswith("sampling/")} == {
            name: value for name, value in log.items() if name.startswith("sampling/")
        }
        # Rows are regrouped where a gate acts.
        assert torch.equal(gradient, grpo) if "gate" in keywords else relative_error(gradient, grpo) < 1e-5


def test_what_reward_functions_log_of_rollouts_outlives_the_demonstrations_rewards(tiny_model, tmp_path):
    """LUFFY asks for the rewards of demonstrations, too, in the midst of TRL's scoring."""
    logged = []

    def reward(completions, log_extra, log_metric, **kwargs):
        log_metric("share", 0.25 if len(logged) % 2 == 0 else 0.75)
        log_extra("number", [len(logged)] * len(completions))
        logged.append(len(completions))
        return [float(row % 3 == 0) for row in range(len(completions))]

    trainer = make_trainer(
        tiny_model, tmp_path, algorithm="luffy", reward=reward, num_iterations=2, max_steps=2, log_completions=True
    )
    trainer.train()
    assert logged == [16, 16]
    assert trainer.state.log_history[0]["share"] == 0.25
    assert set(trainer._logs["extra"]["number"]) == {0}
