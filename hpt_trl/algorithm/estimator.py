r"""The Unified Policy Gradient Estimator: every post-training gradient as four interchangeable parts.

As in arXiv 2509.04419, eq. 8::

    gradient = 1_stable * (1 / pi_ref) * A * grad pi_theta

A part is a small function of `Tokens`; an `Estimator` holds one of each kind and composes them into a surrogate loss
with that gradient; an `Algorithm` says which estimators act on rollouts and which on demonstrations. Tensors only: no
trainer, no config, no collective.

A part of your own is any function with the same signature. `presets.py` composes the paper's algorithms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LUFFY_SHAPE = 0.1
"""Constant of the policy shaping `p / (p + 0.1)`. Source: LUFFY, arXiv 2504.14945, eq. 7."""

# exp(80) is 5.5e34: a product with an advantage and a sum over a batch stay finite in float32 and bfloat16.
_MAX_LOG_RATIO = 80.0


@dataclass(frozen=True)
class Tokens:
    """What the parts see: B rows of T completion tokens.

    Args:
        logps: (B, T) log-probabilities of the policy in nats, with gradient.
        mask: (B, T), 1 on tokens that count.
        old_logps: (B, T) of the policy that sampled them, without gradient; None: the current policy, detached.
        advantages: (B,) or (B, T), for algorithms that are given theirs.
        rewards: (B,), for algorithms that estimate their own.
        group_size: rows per prompt, which are adjacent; None where rows are not in complete groups.
        entropies: (B, T) in nats, for SRFT.

    Example:
        >>> from hpt_trl.algorithm.presets import SFT
        >>> logps_B_T = torch.tensor([[-0.1, -0.3], [-2.0, 0.0]], requires_grad=True)
        >>> tokens = Tokens(logps_B_T, mask=torch.tensor([[1, 1], [1, 0]]))
        >>> token_means(SFT.token_losses(tokens), tokens.mask)  # (0.1 + 0.3) / 2 tokens, 2.0 / 1 token
        tensor([0.2000, 2.0000], grad_fn=<DivBackward0>)
    """

    logps: Tensor
    mask: Tensor
    old_logps: Tensor | None = None
    advantages: Tensor | None = None
    rewards: Tensor | None = None
    group_size: int | None = None
    entropies: Tensor | None = None

    def old(self) -> Tensor:
        """(B, T) log-probabilities of the sampling policy."""
        return self.logps.detach() if self.old_logps is None else self.old_logps


Reference = Callable[[Tokens], Tensor]
"""Tokens -> (B, T) log pi_ref, without gradient."""
Likelihood = Callable[[Tensor, Tensor], Tensor]
"""(log pi_theta, log pi_ref), both (B, T) -> (B, T) whose gradient is `grad pi_theta / pi_ref`, shaped or not."""
Advantage = Callable[[Tokens], Tensor]
"""Tokens -> (B,) or (B, T) advantages, without gradient."""
Stabilization = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(ratio, advantage), both (B, T) -> (B, T) bool of the tokens that learn, (B, T) value of the others."""


def token_sums(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Sum each row over its unmasked tokens. Returns (B,)."""
    return (values_B_T * mask_B_T).sum(dim=1)


def token_means(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Average each row over its unmasked tokens; 0 for a row without any. Returns (B,).

    Example:
        >>> token_means(torch.tensor([[2.0, 4.0], [2.0, 4.0]]), torch.tensor([[1, 1], [1, 0]]))
        tensor([3., 2.])
    """
    return token_sums(values_B_T, mask_B_T) / mask_B_T.sum(dim=1).clamp(min=1)


# Part 1: stabilization mask.


def unstabilized(ratio_B_T: Tensor, advantage_B_T: Tensor) -> tuple[Tensor, Tensor]:
    """Every token learns."""
    return torch.ones_like(ratio_B_T, dtype=torch.bool), ratio_B_T


def clip(
    ratio_B_T: Tensor, advantage_B_T: Tensor, *, epsilon_low: float = 0.2, epsilon_high: float = 0.2
) -> tuple[Tensor, Tensor]:
    """PPO's clip: a token that has moved far enough in the direction of its advantage stops learning.

    Args:
        ratio_B_T: `pi_theta / pi_ref`, without gradient.
        advantage_B_T: advantages.
        epsilon_low, epsilon_high: how far below and above 1 the ratio may be.

    Source: PPO, arXiv 1707.06347, eq. 7; arXiv 2509.04419, table 1.

    Example:
        >>> stable_B_T, frozen_B_T = clip(torch.tensor([[0.5, 1.0, 1.5]]), torch.tensor([[1.0, 1.0, 1.0]]))
        >>> stable_B_T, frozen_B_T  # the third has been raised by more than 20 %
        (tensor([[ True,  True, False]]), tensor([[0.8000, 1.0000, 1.2000]]))
    """
    too_high = (advantage_B_T > 0) & (ratio_B_T > 1 + epsilon_high)
    too_low = (advantage_B_T < 0) & (ratio_B_T < 1 - epsilon_low)
    return ~(too_high | too_low), ratio_B_T.clamp(1 - epsilon_low, 1 + epsilon_high)


# Part 2: reference-policy denominator.


def current_policy(tokens: Tokens) -> Tensor:
    """`pi_ref = pi_theta`: SFT and REINFORCE."""
    return tokens.logps.detach()


def old_policy(tokens: Tokens) -> Tensor:
    """`pi_ref = pi_old`: PPO and GRPO."""
    return tokens.old()


def unit_policy(tokens: Tokens) -> Tensor:
    """`pi_ref = 1`: the demonstrator is taken to be certain. Source: LUFFY, arXiv 2504.14945."""
    return torch.zeros_like(tokens.logps)


def clipped_old_policy(tokens: Tokens, *, max_ratio: float = 1.2) -> Tensor:
    """`pi_old`, raised where `pi_theta / pi_old` would pass `max_ratio`. Source: CISPO, arXiv 2506.13585, eq. 4."""
    log_ratio_B_T = tokens.logps.detach() - tokens.old()
    return tokens.logps.detach() - log_ratio_B_T.clamp(max=math.log(max_ratio))


def sequence_policy(tokens: Tokens) -> Tensor:
    """`pi_theta * (pi_old / pi_theta)^(1 / length)`, the sequence's ratio. Source: GSPO, arXiv 2507.18071, eq. 7."""
    logps = tokens.logps.detach()
    return logps - token_means(logps - tokens.old(), tokens.mask).unsqueeze(1)


# Part 3: advantage estimate.


def ones(tokens: Tokens) -> Tensor:
    """1: every token of a demonstration is right."""
    return torch.ones_like(tokens.logps[:, 0])


def given(tokens: Tokens) -> Tensor:
    """As the caller says, e.g. GAE for PPO."""
    return _needed(tokens.advantages, "advantages")


def signs(tokens: Tokens) -> Tensor:
    """+1 for a reward of 1, -1 for any below, 0 for NaN. Source: arXiv 2509.04419, table 1 (REINFORCE)."""
    rewards_B = _needed(tokens.rewards, "rewards")
    return torch.where(rewards_B >= 1, 1.0, -1.0).to(rewards_B).masked_fill(rewards_B.isnan(), 0.0)


def group_advantages(tokens: Tokens, *, scale: bool = False, epsilon: float = 1e-6) -> Tensor:
    """Reward minus its group's mean, over the group's std if asked. Returns (B,).

    Args:
        tokens: `rewards` (B,) in whole groups of `group_size`; NaN marks a row without one, whose advantage is 0.
        scale: divide by the sample standard deviation; a group of one row or of equal rewards gives 0.
        epsilon: added to the std.

    Raises:
        ValueError: if `rewards` or `group_size` is missing.

    Source: GRPO, arXiv 2402.03300, section 4.1.2; without `scale` Dr. GRPO, arXiv 2503.20783.

    Example:
        >>> logps_B_T = torch.zeros(4, 1)
        >>> rewards_B = torch.tensor([1.0, 0.0, 0.0, 0.0])
        >>> group_advantages(Tokens(logps_B_T, torch.ones(4, 1), rewards=rewards_B, group_size=4))
        tensor([ 0.7500, -0.2500, -0.2500, -0.2500])
    """
    if tokens.group_size is None:
        raise ValueError(
            "Group advantages need whole groups, Tokens(group_size=...): set Estimator(needs_groups=True)."
        )
    rewards_P_G = _needed(tokens.rewards, "rewards").view(-1, tokens.group_size)
    advantages_P_G = rewards_P_G - rewards_P_G.nanmean(dim=1, keepdim=True)
    if scale:
        degrees_P_1 = ((~rewards_P_G.isnan()).sum(dim=1, keepdim=True) - 1).clamp(min=1)
        std_P_1 = (advantages_P_G.square().nansum(dim=1, keepdim=True) / degrees_P_1).sqrt()
        advantages_P_G = advantages_P_G / (std_P_1 + epsilon)
    return advantages_P_G.flatten().nan_to_num(0.0)


def srft_rollout(tokens: Tokens) -> Tensor:
    """`0.1 exp(H)` for a right rollout, -1 for a wrong one, 0 for a reward of NaN; H is the row's mean token entropy.

    Returns (B,).

    Source: SRFT, arXiv 2506.19767, as in the reference code of arXiv 2509.04419.
    """
    rewards_B = _needed(tokens.rewards, "rewards")
    return torch.where(rewards_B >= 1, 0.1 * _row_entropy(tokens).exp(), -1.0).masked_fill(rewards_B.isnan(), 0.0)


def srft_demonstration(tokens: Tokens) -> Tensor:
    """`0.5 exp(-H)`: a demonstration weighs less where the policy is unsure. Returns (B,).

    Source: SRFT, arXiv 2506.19767, as in the reference code of arXiv 2509.04419.
    """
    return 0.5 * (-_row_entropy(tokens)).exp()


def token_uncertainty(tokens: Tokens) -> Tensor:
    """`p (1 - p)`: neither what the policy knows nor what it could never say. Returns (B, T).

    Source: CHORD, arXiv 2508.11408, eq. 7.
    """
    probs_B_T = tokens.logps.detach().exp()
    return probs_B_T * (1 - probs_B_T)


def demonstration_advantages(solved_P: Tensor, scored_P: Tensor) -> Tensor:
    """Advantage of a demonstration that joins its prompt's rollouts with reward 1, without division by the std.

    Args:
        solved_P: (P,) sum of the rollouts' success (number of solved rollouts).
        scored_P: (P,) number of rollouts that could be scored.

    Returns:
        (P,) `1 - (solved + 1) / (scored + 1)`: 0 when all rollouts solved the prompt.

    Source: LUFFY, arXiv 2504.14945, eq. 4.

    Example:
        >>> demonstration_advantages(solved_P=torch.tensor([0.0, 7.0]), scored_P=torch.tensor([7.0, 7.0]))
        tensor([0.8750, 0.0000])
    """
    return (scored_P - solved_P) / (scored_P + 1)


def _row_entropy(tokens: Tokens) -> Tensor:
    return token_means(_needed(tokens.entropies, "entropies").detach(), tokens.mask)


def _needed(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"This estimator needs Tokens({name}=...), which was not given.")
    return tensor


# Part 4: likelihood gradient.


def ratio(logps_B_T: Tensor, reference_B_T: Tensor) -> Tensor:
    """`pi_theta / pi_ref`: its gradient is `grad pi_theta / pi_ref`."""
    return _safe_exp(logps_B_T - reference_B_T)


def log_likelihood(logps_B_T: Tensor, reference_B_T: Tensor) -> Tensor:
    """`sg(pi_theta / pi_ref) log pi_theta`: the same gradient, and the value people know from SFT and CISPO."""
    return _safe_exp(logps_B_T.detach() - reference_B_T) * logps_B_T


def shaped(logps_B_T: Tensor, reference_B_T: Tensor, *, shape: float = LUFFY_SHAPE) -> Tensor:
    """`r / (r + shape)` of `r = pi_theta / pi_ref`: unlikely tokens learn more.

    Source: LUFFY, arXiv 2504.14945, eq. 7.
    """
    ratio_B_T = ratio(logps_B_T, reference_B_T)
    return ratio_B_T / (ratio_B_T + shape)


def _safe_exp(log_ratio_B_T: Tensor) -> Tensor:
    return log_ratio_B_T.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp()


@dataclass(frozen=True)
class Estimator:
    """One of each part.

    Args:
        reference: the denominator.
        advantage: the advantage estimate.
        likelihood: the likelihood gradient.
        stabilization: the mask.
        needs_groups: whether the advantage is taken over whole groups, which a micro-batch does not hold. The trainer
            then computes it where groups are whole and gives it to the loss.

    Example:
        SFT weighted by the token's probability (DFT, arXiv 2508.05629): the gradient of `log pi` is 1, so `-p` is left.

        >>> from hpt_trl.algorithm.presets import SFT
        >>> dft = replace(SFT, reference=unit_policy)
        >>> logps_B_T = torch.tensor([[0.5, 0.1]]).log().requires_grad_()
        >>> dft.token_losses(Tokens(logps_B_T, mask=torch.ones(1, 2))).sum().backward()
        >>> logps_B_T.grad
        tensor([[-0.5000, -0.1000]])
    """

    reference: Reference = old_policy
    advantage: Advantage = given
    likelihood: Likelihood = ratio
    stabilization: Stabilization = unstabilized
    needs_groups: bool = False

    def token_losses(self, tokens: Tokens) -> Tensor:
        """Surrogate loss of each token, (B, T), 0 where `tokens.mask` is.

        Its gradient is `-1_stable * A / pi_ref * grad pi_theta`. Half precision is computed in float32.
        """
        tokens = _cleaned(tokens)
        advantage = self.advantage(tokens).detach()
        advantage_B_T = (advantage.unsqueeze(1) if advantage.ndim == 1 else advantage).expand_as(tokens.logps)
        reference_B_T = self.reference(tokens)
        stable_B_T, frozen_B_T = self.stabilization(_safe_exp(tokens.logps.detach() - reference_B_T), advantage_B_T)
        # A token that does not learn has the value of its frozen ratio, as in TRL's and the reference code's losses.
        frozen_logps_B_T = reference_B_T + frozen_B_T.log()
        logps_B_T = torch.where(stable_B_T, tokens.logps, frozen_logps_B_T)
        surrogate_B_T = self.likelihood(logps_B_T, reference_B_T)
        return torch.where(tokens.mask.bool(), -advantage_B_T * surrogate_B_T, 0.0)


def _cleaned(tokens: Tokens) -> Tokens:
    """Half precision in float32, and zeros on masked tokens: padding may hold anything, and 0 times inf is NaN."""
    is_half = tokens.logps.dtype in (torch.bfloat16, torch.float16)

    def clean(logps_B_T: Tensor) -> Tensor:
        return torch.where(tokens.mask.bool(), logps_B_T.float() if is_half else logps_B_T, 0.0)

    old = None if tokens.old_logps is None else clean(tokens.old_logps)
    return replace(tokens, logps=clean(tokens.logps), old_logps=old)
