"""From the rewards of complete groups to what every prompt is trained on: the paper's decision, on tensors only."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hpt_trl.algorithm.estimator import demonstration_advantages, group_advantages
from hpt_trl.algorithm.gate import Gate, GateWeights, gate_weights, solve_rates
from hpt_trl.algorithm.presets import Algorithm, joint_advantages


@dataclass(frozen=True)
class Groups:
    """The rewards of one generation: P prompts with G rollouts each, on all processes.

    Args:
        gate_P_G: (P, G) rewards of the function that the gate listens to; NaN where it could not score.
        total_P_G: (P, G) weighted sums over all reward functions; NaN where none could score.
        success_value: a rollout with at least this reward solved its prompt; None: solve rates are mean rewards.
    """

    gate_P_G: Tensor
    total_P_G: Tensor
    success_value: float | None

    @classmethod
    def of(
        cls, rewards_B_F: Tensor, column: int, weights_F: Tensor, group_size: int, success_value: float | None
    ) -> "Groups":
        """The groups of one generation.

        Args:
            rewards_B_F: (B, F) rewards of all rows by F reward functions; rows of a prompt are adjacent.
            column: the function that the gate listens to.
            weights_F: (F,) weights of the functions in their sum.
            group_size: G.
            success_value: as above.
        """
        total_P_G = total_rewards(rewards_B_F, weights_F).view(-1, group_size)
        return cls(rewards_B_F[:, column].view(-1, group_size), total_P_G, success_value)

    def solve_rates(self) -> Tensor:
        """(P,) solve rates. Source: arXiv 2509.04419, eq. 9."""
        return solve_rates(self.gate_P_G, self.success_value)

    def successes(self) -> Tensor:
        """(P * G,) success of each rollout, 1 or 0, or its reward without a `success_value`; NaN where not scored."""
        return solve_rates(self.gate_P_G.view(-1, 1), self.success_value)


@dataclass(frozen=True)
class Decision:
    """What one generation is trained on.

    Args:
        weights: weights of each prompt's rollouts and demonstration.
        advantages_B: (P * G,) advantages of the rollouts before the gate's weights; None: TRL's own.
        demonstration_advantage_P: (P,) advantages of the demonstrations.
    """

    weights: GateWeights
    advantages_B: Tensor | None
    demonstration_advantage_P: Tensor

    @classmethod
    def demonstrations_only(cls, is_available_P: Tensor) -> "Decision":
        """Train every prompt that has a demonstration, (P,) bool, on it, and on nothing else."""
        zeros_P = torch.zeros_like(is_available_P, dtype=torch.float)
        return cls(GateWeights(zeros_P, is_available_P.float(), zeros_P), None, zeros_P)


def total_rewards(rewards_B_F: Tensor, reward_weights_F: Tensor) -> Tensor:
    """(B,) weighted sums over F reward functions, as TRL takes them; NaN where none could score."""
    rewards_B = (rewards_B_F * reward_weights_F.to(rewards_B_F)).nansum(dim=1)
    return rewards_B.masked_fill(rewards_B_F.isnan().all(dim=1), torch.nan)


def decide(
    groups: Groups,
    has_demonstration_P: Tensor,
    algorithm: Algorithm,
    gate: Gate,
    step: int,
    *,
    reads_solve_rates: bool = True,
    scale_joint_groups: bool = False,
    demonstration_reward_P: Tensor | None = None,
) -> Decision:
    """Decide what every prompt is trained on.

    Args:
        groups: rewards of the generation.
        has_demonstration_P: (P,) bool.
        algorithm: which losses there are.
        gate: from solve rates to weights.
        step: optimizer step.
        reads_solve_rates: whether the gate depends on solve rates; if not, it also decides for prompts without one.
        scale_joint_groups: divide the advantages of joint groups by their std (TRL's `scale_rewards="group"`).
        demonstration_reward_P: (P,) total rewards of the demonstrations that join their groups, NaN where none does;
            needed if `algorithm.joint_group`.

    Source: arXiv 2509.04419, eq. 9 and 10; joint groups: LUFFY, arXiv 2504.14945, eq. 4.
    """
    solve_rate_P = groups.solve_rates()
    gate_rate_P = solve_rate_P if reads_solve_rates else solve_rate_P.nan_to_num()
    weights = gate_weights(gate, gate_rate_P, has_demonstration_P, step)
    part = algorithm.group_advantage()
    if algorithm.joint_group and demonstration_reward_P is not None:
        if part is None or algorithm.trl_rollouts:
            part = partial(group_advantages, scale=scale_joint_groups)
        rollouts_P_G, demonstration_P = joint_advantages(groups.total_P_G, demonstration_reward_P, part)
        return Decision(weights, rollouts_P_G.flatten(), demonstration_P)
    scored_P = (~groups.gate_P_G.isnan()).sum(dim=1)
    demonstration_advantage_P = demonstration_advantages(solve_rate_P.nan_to_num() * scored_P, scored_P)
    advantages_B = None
    if not algorithm.trl_rollouts and part is not None:
        without_P = torch.full_like(solve_rate_P, torch.nan)
        advantages_B = joint_advantages(groups.total_P_G, without_P, part)[0].flatten()
    return Decision(weights, advantages_B, demonstration_advantage_P)
