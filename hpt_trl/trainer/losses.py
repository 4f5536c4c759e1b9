"""Losses on rollouts and demonstrations: tensors in, tensors out. The trainer calls the model and scales the step."""

from typing import NamedTuple

import torch
from torch import Tensor

from hpt_trl.algorithm.estimator import Estimator, Tokens, given, token_means, token_sums
from hpt_trl.algorithm.presets import OFF_POLICY, SFT, Algorithm, summed_losses
from hpt_trl.trainer.batches import DemonstrationForward, RolloutBatch, has_rollouts


class DemonstrationLoss(NamedTuple):
    """Losses of one forward pass of demonstrations, and what is logged of them.

    Args:
        total: () sum over demonstrations, to be divided by what `sft_normalization` says.
        joint: () sum over demonstrations that joined their groups, to be divided by the number of rows; None if the
            algorithm has no joint groups.
        sums_3: (3,) without gradient: NLL in nats, trained tokens, demonstrations.
    """

    total: Tensor
    joint: Tensor | None
    sums_3: Tensor


def row_losses(losses_B_T: Tensor, mask_B_T: Tensor, loss_type: str, max_length: int) -> Tensor:
    """(B,) losses of rows, averaged over tokens as TRL's `loss_type` "grpo" or "dr_grpo" does.

    Args:
        losses_B_T: (B, T) losses of tokens.
        mask_B_T: (B, T), 1 on tokens that count.
        loss_type: "grpo" divides by the row's length, "dr_grpo" by `max_length`.
        max_length: TRL's `max_completion_length`.
    """
    if loss_type == "grpo":
        return token_means(losses_B_T, mask_B_T)
    return token_sums(losses_B_T, mask_B_T) / max_length


def has_signal(batch: RolloutBatch, algorithm: Algorithm, all_rows_matter: bool) -> Tensor:
    """(B,) True where a rollout can change the policy, or what another rollout does to it.

    Args:
        batch: B rows; advantages carry the gate's weights.
        algorithm: which losses there are.
        all_rows_matter: whether a rollout with advantage 0 matters too, as with a KL penalty.
    """
    if not has_rollouts(batch):
        return torch.zeros_like(batch["advantages"], dtype=torch.bool)
    if not algorithm.trl_rollouts and any(map(_estimates_row_by_row, algorithm.rollouts)):
        return batch["rollout_weight"] != 0
    if all_rows_matter:
        return torch.ones_like(batch["advantages"], dtype=torch.bool)
    return (batch["advantages"] != 0) & batch["completion_mask"].any(dim=1)


def _estimates_row_by_row(estimator: Estimator) -> bool:
    """Whether an estimator takes its advantages from the reward of a row, and not from the batch."""
    return not (estimator.needs_groups or estimator.advantage is given)


def rollout_losses(
    logps_B_T: Tensor, entropies_B_T: Tensor | None, batch: RolloutBatch, algorithm: Algorithm
) -> tuple[Tensor, Tensor]:
    """The algorithm's own losses on rollouts.

    Args:
        logps_B_T: (B, T) log-probabilities of the policy in nats, with gradient.
        entropies_B_T: (B, T) in nats, for algorithms that need them.
        batch: B rows; advantages carry the gate's weights, `rewards` do not.
        algorithm: whose estimators.

    Returns:
        (B, T) losses of tokens and (B, T) the mask of tokens that count. What a tool wrote does not.
    """
    mask_B_T, tool_mask_B_T = batch["completion_mask"], batch.get("tool_mask")
    if tool_mask_B_T is not None:
        mask_B_T = mask_B_T * tool_mask_B_T
    tokens = Tokens(
        logps_B_T,
        mask_B_T,
        old_logps=batch.get("old_per_token_logps"),
        advantages=batch.get("advantages"),
        rewards=batch.get("rewards"),
        entropies=entropies_B_T,
    )
    # The advantages of the batch carry the gate's weights already.
    losses_B_T = summed_losses([each for each in algorithm.rollouts if not _estimates_row_by_row(each)], tokens)
    row_by_row = [each for each in algorithm.rollouts if _estimates_row_by_row(each)]
    if row_by_row:
        losses_B_T = losses_B_T + summed_losses(row_by_row, tokens) * batch["rollout_weight"].unsqueeze(1)
    if "importance_sampling_ratio" in batch:
        # TRL's correction for vLLM, which sampled with other weights and in another precision.
        losses_B_T = losses_B_T * batch["importance_sampling_ratio"]
    return losses_B_T, mask_B_T


def demonstration_loss(
    logps_B_T: Tensor,
    entropies_B_T: Tensor,
    batch: DemonstrationForward,
    algorithm: Algorithm,
    *,
    sft_weight: float | Tensor,
    per_token: bool,
    loss_type: str,
    max_length: int,
) -> DemonstrationLoss:
    """Losses on the demonstrations of one forward pass.

    Args:
        logps_B_T: (B, T) log-probabilities of the policy at temperature 1, with gradient.
        entropies_B_T: (B, T) in nats.
        batch: labels (B, T + 1) and weights.
        algorithm: whose estimators.
        sft_weight: factor on all but the off-policy gradient.
        per_token: sum over tokens instead of averaging each demonstration (`sft_normalization="token"`).
        loss_type, max_length: as in `row_losses`, for demonstrations that join their groups.
    """
    mask_B_T = batch["labels"][:, 1:] != -100
    tokens = Tokens(logps_B_T, mask_B_T, advantages=batch["demonstration_advantage"], entropies=entropies_B_T)
    reduce = token_sums if per_token else token_means
    alone = [estimator for estimator in algorithm.demonstrations if not estimator.needs_groups]
    in_groups = [estimator for estimator in algorithm.demonstrations if estimator.needs_groups]
    weight_B = batch["demonstration_weight"]
    sft_B = sft_weight * weight_B * reduce(summed_losses(alone, tokens), mask_B_T)
    off_policy_B = batch["off_policy_weight"] * reduce(OFF_POLICY.token_losses(tokens), mask_B_T)
    joint = None
    if in_groups:
        # A demonstration that joins its group is one of its rows, and has the weight of a rollout.
        joint_B = weight_B * row_losses(summed_losses(in_groups, tokens), mask_B_T, loss_type, max_length)
        joint = joint_B.sum()
    nll = SFT.token_losses(tokens).detach().sum()
    sums_3 = torch.stack([nll, mask_B_T.sum(), mask_B_T.any(dim=1).sum()])
    return DemonstrationLoss((sft_B + off_policy_B).sum(), joint, sums_3)
