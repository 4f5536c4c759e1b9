"""Rows may be spread over forwards in any way: the gradient stays, and no forward is larger than its budget."""

import pytest
import torch
from trl import GRPOTrainer

from hpt_trl import HPTConfig
from hpt_trl.algorithm.presets import ALGORITHMS
from hpt_trl.trainer import hpt as hpt_module
from hpt_trl.trainer.checks import check_support
from tests.tiny import fixed_rollouts, make_trainer, parameters, relative_error, step_gradient

ON_FIXED = {"trainer": {"rollout_func": fixed_rollouts}}


def forwarded_tokens(trainer) -> list[int]:
    """Tokens of each forward with a gradient in a run, padding included."""
    sizes = []

    def note(module, args, keywords):
        if torch.is_grad_enabled():
            sizes.append(keywords["input_ids"].numel())

    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    return sizes


@pytest.mark.parametrize("budget", [1, 24, 10_000])
@pytest.mark.parametrize("options", [
    {"gate": "linear"}, {"gate": "off"}, {"gate": "linear", "beta": 0.1}, {"gate": "linear", "loss_type": "dapo"},
    {"gate": "linear", "loss_type": "grpo"}, {"algorithm": "luffy"}, {"algorithm": "srft"}, {"algorithm": "sft"},
])  # fmt: skip
def test_a_budget_keeps_the_gradient(tiny_model, tmp_path, options, budget):
    whole = step_gradient(tiny_model, tmp_path, skip_zero_signal_rollouts=False, **options, **ON_FIXED)
    cut = step_gradient(tiny_model, tmp_path, max_tokens_per_forward=budget, **options, **ON_FIXED)
    assert relative_error(cut, whole) < 1e-5


def test_no_forward_is_larger_than_its_budget(tiny_model, tmp_path):
    options = {"max_steps": 1, "gate": "linear", **ON_FIXED}
    # 16 rows of 4 + 2 to 6 tokens, in micro-batches of 4.
    assert max(forwarded_tokens(make_trainer(tiny_model, tmp_path, **options))) > 24
    sizes = forwarded_tokens(make_trainer(tiny_model, tmp_path, max_tokens_per_forward=24, **options))
    assert max(sizes) <= 24
    assert len(sizes) > 8


def test_a_long_demonstration_pads_no_rollout(tiny_model, tmp_path):
    from tests.tiny import ROWS

    rows = ROWS.map(lambda row, index: {"demonstration": "x" * (100 if index == 0 else 2)}, with_indices=True)
    options = {"max_steps": 1, "gate": "linear", "max_demonstration_length": 101, **ON_FIXED}
    sizes = forwarded_tokens(make_trainer(tiny_model, tmp_path, rows=rows, **options))
    # The demonstration with its end and its prompt of 4 tokens stands alone.
    assert sorted(sizes)[-1] == 105
    assert sorted(sizes)[-2] <= 4 * (6 + 7)


@pytest.mark.parametrize("reuse", [{"num_iterations": 2}, {"steps_per_generation": 8}])
def test_old_logps_are_computed_of_rows_with_signal_only(tiny_model, tmp_path, monkeypatch, reuse):
    rows = []
    upstream = GRPOTrainer._get_per_token_logps_and_entropies

    def count(self, model, input_ids, *args, **kwargs):
        if not torch.is_grad_enabled():
            rows.append(len(input_ids))
        return upstream(self, model, input_ids, *args, **kwargs)

    options = {"gate_threshold": 0.25, "max_steps": 2, "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1}
    kept = step_gradient(tiny_model, tmp_path, skip_zero_signal_rollouts=False, **options, **reuse, **ON_FIXED)
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", count)
    trainer = make_trainer(tiny_model, tmp_path, **options, **reuse, **ON_FIXED)
    trainer.train()
    generated = 16 * (2 if "steps_per_generation" in reuse else 1)
    assert sum(rows) == round(generated * trainer.state.log_history[0]["hpt/signal_share"]) < generated
    monkeypatch.undo()
    dropped = step_gradient(tiny_model, tmp_path, **options, **reuse, **ON_FIXED)
    # The second step's gradient, whose importance ratios are not 1.
    assert relative_error(dropped, kept) < 1e-5


def test_a_budget_does_not_go_with_what_acts_on_a_micro_batch():
    for options in ({"loss_type": "bnpo"}, {"entropy_coef": 0.1}, {"skip_zero_signal_rollouts": False}):
        with pytest.raises(ValueError, match=next(iter(options))):
            HPTConfig("out", use_cpu=True, bf16=False, max_tokens_per_forward=100, **options)
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        HPTConfig("out", use_cpu=True, bf16=False, max_tokens_per_forward=0)
    with pytest.raises(ValueError, match="steps inside backward"):
        HPTConfig("out", use_cpu=True, bf16=False, optim="galore_adamw_layerwise")
    args = HPTConfig("out", use_cpu=True, bf16=False, max_tokens_per_forward=100)
    for router, pictures in ((True, False), (False, True)):
        with pytest.raises(ValueError, match="which max_tokens_per_forward"):
            check_support(args, ALGORITHMS["hpt"], router, pictures)


def one_mixed_prompt_and_two_unsolved(completion_ids, **kwargs):
    """Eight prompts of two rollouts: the first has one right, two have none, the others are solved."""
    return [1.0, 0.0, *[0.0] * 4, *[1.0] * 10]


FEW_ROWS = {"num_generations": 2, "max_steps": 1, "gate_threshold": 0.0, **ON_FIXED}
FEW_ROWS["reward"] = one_mixed_prompt_and_two_unsolved


def test_few_rows_are_not_spread_over_all_micro_batches(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, **FEW_ROWS)
    # Two rollouts of 4 prompt tokens and 3 or 2 of their own, two demonstrations of 5 + 6 and 6 + 7 tokens: one pass
    # each, because a micro-batch of TRL has four rows. The other three micro-batches have nothing to pass.
    assert forwarded_tokens(trainer) == [2 * (4 + 3), 2 * 13]


def test_the_longest_rollouts_go_with_the_shortest_demonstrations(tiny_model, tmp_path):
    """So that micro-batches are of similar size."""
    sizes = forwarded_tokens(make_trainer(tiny_model, tmp_path, max_steps=1, gate="linear", **ON_FIXED))
    assert sizes == [48, 22, 44, 26, 40, 32]


def test_no_pass_is_larger_than_a_micro_batch_of_trl(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, max_steps=1, gate="linear", **ON_FIXED)
    rows = trainer.args.per_device_train_batch_size
    widths = []
    regrouped = hpt_module.regroup

    def note_width(batches, *args, **kwargs):
        widths.append(batches[0]["prompt_ids"].size(1) + batches[0]["completion_ids"].size(1))
        return regrouped(batches, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hpt_module, "regroup", note_width)
        sizes = forwarded_tokens(trainer)
    assert len(sizes) > 2
    assert max(sizes) <= rows * widths[0]


def test_micro_batches_without_passes_do_not_change_the_step(tiny_model, tmp_path):
    spread = step_gradient(tiny_model, tmp_path, **FEW_ROWS, max_tokens_per_forward=1)
    assert relative_error(step_gradient(tiny_model, tmp_path, **FEW_ROWS), spread) < 1e-5


def test_a_step_with_nothing_to_learn_still_has_a_gradient(tiny_model, tmp_path):
    """AdamW decays weights only where there is a gradient: zeros, as GRPO has them."""
    nothing = {"gate": "off", "max_tokens_per_forward": 100, "reward": lambda completion_ids, **kwargs: [0.0] * 16}
    trainer = make_trainer(tiny_model, tmp_path, **FEW_ROWS | nothing, weight_decay=0.1)
    before = parameters(trainer)
    # Two masked tokens, once.
    assert forwarded_tokens(trainer) == [2]
    assert (parameters(trainer) != before).any()
