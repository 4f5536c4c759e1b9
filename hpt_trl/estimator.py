"""The parts of the Unified Policy Gradient Estimator that the trainer needs: tensors in, tensors out."""

from torch import Tensor

LUFFY_SHAPE = 0.1
"""Constant of the policy shaping `p / (p + 0.1)`. Source: LUFFY, arXiv 2504.14945, eq. 7."""


def token_sums(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Sum each row over its unmasked tokens. Returns (B,)."""
    return (values_B_T * mask_B_T).sum(dim=1)


def token_means(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Average each row over its unmasked tokens; 0 for a row without any. Returns (B,)."""
    return token_sums(values_B_T, mask_B_T) / mask_B_T.sum(dim=1).clamp(min=1)


def demonstration_nll(logps_B_T: Tensor) -> Tensor:
    """Negative log-likelihood of each token: `pi_ref = pi_theta`, advantage 1, no mask.

    Args:
        logps_B_T: (B, T) log-probabilities in nats at temperature 1, with gradient.

    Returns:
        (B, T) losses.

    Source: arXiv 2509.04419, eq. 2 and table 1 (SFT).
    """
    return -logps_B_T


def shaped_off_policy_loss(logps_B_T: Tensor) -> Tensor:
    """Off-policy policy-gradient loss of each demonstration token at advantage 1: `pi_ref = 1`, LUFFY's shaping.

    Args:
        logps_B_T: (B, T) log-probabilities in nats at temperature 1, with gradient.

    Returns:
        (B, T) losses `-p / (p + 0.1)`, in (-1, 0]; scale by the advantage of the row.

    Source: LUFFY, arXiv 2504.14945, eq. 7; arXiv 2509.04419, table 1.
    """
    probs_B_T = logps_B_T.exp()
    return -probs_B_T / (probs_B_T + LUFFY_SHAPE)


def demonstration_advantages(solved_P: Tensor, scored_P: Tensor) -> Tensor:
    """Advantage of a demonstration that joins its prompt's rollouts with reward 1, group mean subtracted.

    Args:
        solved_P: (P,) sum of the rollouts' success (number of solved rollouts).
        scored_P: (P,) number of rollouts that could be scored.

    Returns:
        (P,) `1 - (solved + 1) / (scored + 1)`: 0 when all rollouts solved the prompt.

    Source: LUFFY, arXiv 2504.14945, eq. 4, without the division by the std (Dr. GRPO).
    """
    return (scored_P - solved_P) / (scored_P + 1)
