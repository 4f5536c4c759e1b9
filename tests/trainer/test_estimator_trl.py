"""The estimator's gradient is that of TRL's own loss on the same batch, off-policy and with clipping active."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from hpt_trl.algorithm.estimator import Tokens, clip, clipped_old_policy, given, token_means, token_sums
from hpt_trl.algorithm.presets import CISPO, GRPO, GSPO, SFT
from tests.tiny import make_trainer, relative_error

ROWS, PROMPT, LENGTH = 8, 5, 7
given_advantage = {"advantage": given}
CASES = {
    "grpo": ({"loss_type": "grpo"}, replace(GRPO, **given_advantage), "row_mean"),
    "dr_grpo": ({"loss_type": "dr_grpo"}, replace(GRPO, **given_advantage), "max_length"),
    "asymmetric": (
        {"loss_type": "grpo", "epsilon": 0.1, "epsilon_high": 0.3},
        replace(GRPO, stabilization=partial(clip, epsilon_low=0.1, epsilon_high=0.3), **given_advantage),
        "row_mean",
    ),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.5},
        replace(CISPO, reference=partial(clipped_old_policy, max_ratio=1.5), **given_advantage),
        "tokens",
    ),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05},
        replace(GSPO, stabilization=partial(clip, epsilon_low=0.05, epsilon_high=0.05), **given_advantage),
        "row_mean",
    ),
}


@pytest.fixture
def batch():
    """Random prompts and completions of unequal length, with old log-probabilities far from the current ones."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 5, 1, 3, 7, 2, 6, 4])
    mask = (torch.arange(LENGTH) < lengths.unsqueeze(1)).long()
    return {
        "prompt_ids": torch.randint(2, 100, (ROWS, PROMPT), generator=generator),
        "prompt_mask": torch.ones(ROWS, PROMPT, dtype=torch.long),
        "completion_ids": torch.randint(2, 100, (ROWS, LENGTH), generator=generator),
        "completion_mask": mask,
        "advantages": torch.randn(ROWS, generator=generator),
        "old_per_token_logps": torch.randn(ROWS, LENGTH, generator=generator) * 0.3,
        "num_items_in_batch": mask.sum(),
    }


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()])


def current_logps(trainer, batch):
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    logits = trainer.model(
        ids, attention_mask=torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    ).logits
    logps = logits[:, PROMPT - 1 : -1].log_softmax(-1)
    return logps.gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)


def reduced(losses, batch, how, max_length):
    if how == "row_mean":
        return token_means(losses, batch["completion_mask"]).mean()
    total = token_sums(losses, batch["completion_mask"]).sum()
    return total / (ROWS * max_length if how == "max_length" else batch["completion_mask"].sum())


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_trls(tiny_model, tmp_path, batch, name):
    options, estimator, how = CASES[name]
    trainer = make_trainer(
        tiny_model, tmp_path, hpt=False, gradient_accumulation_steps=1, per_device_train_batch_size=8, **options
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # Trainer sets it when it trains
    logps = current_logps(trainer, batch)
    # Old log-probabilities around the current ones: ratios from about 0.4 to 2.5.
    batch["old_per_token_logps"] = batch["old_per_token_logps"] + logps.detach()
    tokens = Tokens(logps, batch["completion_mask"], batch["old_per_token_logps"], batch["advantages"])
    losses = estimator.token_losses(tokens)
    found = gradient(trainer.model, reduced(losses, batch, how, trainer.max_completion_length))
    expected = gradient(trainer.model, trainer.compute_loss(trainer.model, batch))
    assert relative_error(found, expected) < 1e-6
    if name != "cispo":
        stable, _ = estimator.stabilization(
            (logps - estimator.reference(tokens)).exp().detach(), batch["advantages"].unsqueeze(1).expand(-1, LENGTH)
        )
        assert 0 < (~stable & batch["completion_mask"].bool()).sum() < batch["completion_mask"].sum()


def test_sft_is_cross_entropy(tiny_model, tmp_path, batch):
    trainer = make_trainer(tiny_model, tmp_path, hpt=False)
    mask = batch["completion_mask"].bool()
    losses = SFT.token_losses(Tokens(current_logps(trainer, batch), batch["completion_mask"]))
    found = gradient(trainer.model, losses.sum() / mask.sum())
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    logits = trainer.model(ids, attention_mask=attention).logits[:, PROMPT - 1 : -1]
    expected = gradient(trainer.model, cross_entropy(logits[mask], batch["completion_ids"][mask]))
    assert relative_error(found, expected) < 1e-6
