"""Every case of the reference implementation's numbers, from the estimator's parts.

HPT_REFERENCE_LOSSES names another file of the same form, of any size.
"""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from hpt_trl.algorithm.estimator import Tokens, clip, given, group_advantages, ratio
from hpt_trl.algorithm.presets import ALGORITHMS, DR_GRPO, OFF_POLICY, SFT, UNCLIPPED

PATH = Path(os.environ.get("HPT_REFERENCE_LOSSES", Path(__file__).parents[1] / "fixtures" / "reference_losses.json"))
BATCHES = json.loads(PATH.read_text())
CASES = [
    pytest.param(index, name, id=f"{index}-{name}") for index, batch in enumerate(BATCHES) for name in batch["cases"]
]


class Batch:
    """One batch of the file as tensors; `rows(of)` picks rows for an estimator."""

    def __init__(self, content):
        self.mask, self.old, self.entropy, self.rewards = (
            torch.tensor(content[key], dtype=torch.float64) for key in ("mask", "old_log_probs", "entropy", "rewards")
        )
        self.logps = torch.tensor(content["log_probs"], dtype=torch.float64, requires_grad=True)
        self.is_demonstration = torch.tensor(content["is_demonstration"]).bool()
        self.group_size = content["group_size"]
        everything = Tokens(self.logps, self.mask, rewards=self.rewards, group_size=self.group_size)
        self.advantages = group_advantages(everything)

    def rows(self, chosen=None):
        chosen = slice(None) if chosen is None else chosen
        return Tokens(
            self.logps[chosen], self.mask[chosen], self.old[chosen], self.advantages[chosen], self.rewards[chosen],
            entropies=self.entropy[chosen],
        )  # fmt: skip

    def sum(self, losses):
        """Over tokens, divided by the maximum length: the reference code's policy normalizer."""
        return losses.sum() / self.mask.size(1)

    def mean(self, losses, chosen=None):
        return losses.sum() / (self.mask if chosen is None else self.mask[chosen]).sum()


def with_given_advantage(estimator):
    """Advantages are those of the whole group, which rows of one kind alone cannot know."""
    return replace(estimator, advantage=given)


def reference_loss(name, case, batch):
    demonstrations, rollouts = batch.is_demonstration, ~batch.is_demonstration
    if name.startswith("policy_clip"):
        bound = case.get("clip_range", 0.2)
        clipping = partial(clip, epsilon_low=bound, epsilon_high=bound)
        estimator = with_given_advantage(replace(DR_GRPO, stabilization=clipping) if "clip_True" in name else UNCLIPPED)
        reduce = batch.mean if "tokenmean_True" in name else batch.sum
        return reduce(estimator.token_losses(batch.rows()))
    if name == "sft":
        return batch.mean(SFT.token_losses(batch.rows()))
    policy = batch.sum(with_given_advantage(UNCLIPPED).token_losses(batch.rows(rollouts)))
    if name.startswith("hpt_mixed"):
        sft = SFT.token_losses(batch.rows(demonstrations))
        return case["sft_coef"] * batch.mean(sft, demonstrations) + policy
    if name.startswith("luffy"):
        estimator = replace(OFF_POLICY, likelihood=ratio) if name == "luffy_no_reshape" else OFF_POLICY
        return policy + batch.sum(estimator.token_losses(batch.rows(demonstrations)))
    assert name == "srft"
    srft = ALGORITHMS["srft"]
    likelihood, off_policy = srft.demonstrations
    return (
        batch.mean(likelihood.token_losses(batch.rows(demonstrations)), demonstrations)
        + batch.sum(srft.rollouts[0].token_losses(batch.rows(rollouts)))
        + batch.sum(with_given_advantage(off_policy).token_losses(batch.rows(demonstrations)))
    )


@pytest.mark.parametrize(("index", "name"), CASES)
def test_reference(index, name):
    case, batch = BATCHES[index]["cases"][name], Batch(BATCHES[index])
    if name.startswith("group_advantage"):
        everything = Tokens(batch.logps, batch.mask, rewards=batch.rewards, group_size=batch.group_size)
        found = group_advantages(everything, scale=name.endswith("True")).unsqueeze(1) * batch.mask
        torch.testing.assert_close(found, torch.tensor(case["advantages"], dtype=torch.float64), rtol=1e-9, atol=1e-9)
        return
    loss = reference_loss(name, case, batch)
    loss.backward()
    torch.testing.assert_close(loss.item(), case["loss"], rtol=1e-9, atol=1e-9)
    expected = torch.tensor(case["grad_log_probs"], dtype=torch.float64)
    torch.testing.assert_close(batch.logps.grad, expected, rtol=1e-9, atol=1e-9)
