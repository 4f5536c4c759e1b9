"""The paper's algorithms: which estimators apply to rollouts and which to demonstrations.

A preset of your own is one line: see `register`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpt_trl.algorithm.estimator import (
    Advantage,
    Estimator,
    Tokens,
    clip,
    clipped_old_policy,
    current_policy,
    given,
    group_advantages,
    log_likelihood,
    old_policy,
    ones,
    ratio,
    sequence_policy,
    shaped,
    signs,
    srft_demonstration,
    srft_rollout,
    token_uncertainty,
    unit_policy,
    unstabilized,
)
from hpt_trl.algorithm.gate import Gate, annealed_gate, constant_gate

SFT = Estimator(current_policy, ones, log_likelihood)
UNCERTAIN_SFT = replace(SFT, advantage=token_uncertainty)
REINFORCE = Estimator(current_policy, signs, log_likelihood)
PPO = Estimator(old_policy, given, ratio, clip)
GRPO = replace(PPO, advantage=partial(group_advantages, scale=True), needs_groups=True)
DR_GRPO = replace(PPO, advantage=group_advantages, needs_groups=True)
CISPO = Estimator(clipped_old_policy, partial(group_advantages, scale=True), log_likelihood, needs_groups=True)
GSPO = Estimator(
    sequence_policy,
    partial(group_advantages, scale=True),
    ratio,
    partial(clip, epsilon_low=3e-4, epsilon_high=4e-4),
    needs_groups=True,
)
UNCLIPPED = replace(DR_GRPO, stabilization=unstabilized)
OFF_POLICY = Estimator(unit_policy, given, shaped)
JOINT_OFF_POLICY = replace(OFF_POLICY, advantage=group_advantages, needs_groups=True)


def equal_weights(options: Any) -> Gate:
    """A gate that weights the rollouts and the demonstration of every prompt by 1."""
    return partial(constant_gate, rollouts=1.0, demonstration=1.0)


def rollouts_only(options: Any) -> Gate:
    """A gate that trains every prompt on its rollouts only."""
    return partial(constant_gate, rollouts=1.0, demonstration=0.0)


def demonstrations_only(options: Any) -> Gate:
    """A gate that trains every prompt on its demonstration only."""
    return partial(constant_gate, rollouts=0.0, demonstration=1.0)


def small_share(options: Any) -> Gate:
    """CHORD-phi's fixed mu: 0.1 for every demonstration, 0.9 for the rollouts. Source: CHORD, arXiv 2508.11408."""
    return partial(constant_gate, rollouts=0.9, demonstration=0.1)


def annealed_over_first_half(options: Any) -> Gate:
    """CHORD-mu's share of demonstrations, annealed over the first half of `options.max_steps`.

    Raises:
        ValueError: if `max_steps` is not set.
    """
    if options.max_steps <= 0:
        raise ValueError(
            f"algorithm={options.algorithm!r} anneals its mixture over the first half of max_steps, got max_steps="
            f"{options.max_steps}: set it."
        )
    return partial(annealed_gate, steps=max(1, options.max_steps // 2))


@dataclass(frozen=True)
class Algorithm:
    """Which estimators apply to rollouts and which to demonstrations; the losses of several are added.

    Args:
        rollouts: losses on rollouts; none: no rollouts are generated.
        demonstrations: losses on demonstrations.
        joint_group: whether a demonstration's reward counts in the advantages of its group.
        trl_rollouts: whether the trainer uses TRL's own advantages and loss on rollouts, as TRL's options say;
            `rollouts` then says only that there are rollouts, and which estimator of the paper this corresponds to.
        fixed_gate: builds, from the config, the gate that is part of this algorithm and does not depend on solve
            rates; None: the gate that the config names, or `equal_weights` for joint groups.

    Example:
        >>> ALGORITHMS["hpt"] == Algorithm(rollouts=(DR_GRPO,), demonstrations=(SFT,), trl_rollouts=True)
        True
        >>> " ".join(sorted(ALGORITHMS))
        'chord chord_mu chord_phi cispo dr_grpo grpo gspo hpt luffy ppo reinforce sft srft'
    """

    rollouts: tuple[Estimator, ...] = ()
    demonstrations: tuple[Estimator, ...] = ()
    joint_group: bool = False
    trl_rollouts: bool = False
    fixed_gate: Callable[[Any], Gate] | None = None

    @property
    def prescribed_gate(self) -> Callable[[Any], Gate] | None:
        """Builds the gate that this algorithm prescribes whatever the solve rates; None where the config names one."""
        return equal_weights if self.joint_group and self.fixed_gate is None else self.fixed_gate

    def group_advantage(self) -> Advantage | None:
        """The advantage estimate over complete groups, if an estimator on rollouts has one."""
        return next((each.advantage for each in self.rollouts if each.needs_groups), None)


def summed_losses(estimators: Sequence[Estimator], tokens: Tokens) -> Tensor:
    """(B, T) summed losses of several estimators on rows without their groups, whose advantages `tokens` holds."""
    row_by_row = [replace(each, advantage=given) if each.needs_groups else each for each in estimators]
    return sum((each.token_losses(tokens) for each in row_by_row), torch.zeros_like(tokens.logps))


def joint_advantages(rewards_P_G: Tensor, demonstration_P: Tensor, part: Advantage) -> tuple[Tensor, Tensor]:
    """Advantages of groups that a demonstration may join.

    Args:
        rewards_P_G: (P, G) rewards of the rollouts, NaN where there is none.
        demonstration_P: (P,) rewards of the demonstrations, NaN where none joins its group.
        part: `group_advantages`, scaled or not.

    Returns:
        (P, G) advantages of the rollouts and (P,) of the demonstrations, 0 where the reward is NaN.

    Source: LUFFY, arXiv 2504.14945, eq. 4.
    """
    joined = torch.cat([rewards_P_G, demonstration_P.unsqueeze(1)], dim=1)
    nothing = joined.new_zeros(joined.numel(), 1)
    tokens = Tokens(nothing, nothing, rewards=joined.flatten(), group_size=joined.size(1))
    advantages = part(tokens).view_as(joined)
    return advantages[:, :-1], advantages[:, -1]


ALGORITHMS: dict[str, Algorithm] = {}
"""Presets by name: arXiv 2509.04419, table 1.

:meta hide-value:
"""


def register(name: str, algorithm: Algorithm) -> None:
    """Add a preset.

    Raises:
        ValueError: if the name is taken.

    Example:
        >>> dft = replace(SFT, reference=unit_policy)
        >>> register("hpt_dft", replace(ALGORITHMS["hpt"], demonstrations=(dft,)))
        >>> "hpt_dft" in ALGORITHMS  # from now on HPTConfig accepts algorithm="hpt_dft"
        True
        >>> del ALGORITHMS["hpt_dft"]
    """
    if name in ALGORITHMS:
        raise ValueError(f"There is an algorithm {name!r} already: choose another name.")
    ALGORITHMS[name] = algorithm


for _name, _algorithm in {
    "sft": Algorithm(demonstrations=(SFT,), fixed_gate=demonstrations_only),
    "reinforce": Algorithm(rollouts=(REINFORCE,), fixed_gate=rollouts_only),
    "ppo": Algorithm(rollouts=(PPO,), fixed_gate=rollouts_only),
    "grpo": Algorithm(rollouts=(GRPO,), fixed_gate=rollouts_only),
    "dr_grpo": Algorithm(rollouts=(DR_GRPO,), fixed_gate=rollouts_only),
    "cispo": Algorithm(rollouts=(CISPO,), fixed_gate=rollouts_only),
    "gspo": Algorithm(rollouts=(GSPO,), fixed_gate=rollouts_only),
    "luffy": Algorithm((UNCLIPPED,), (JOINT_OFF_POLICY,), joint_group=True, trl_rollouts=True),
    "srft": Algorithm(
        (Estimator(current_policy, srft_rollout, log_likelihood),),
        (replace(SFT, advantage=srft_demonstration), JOINT_OFF_POLICY),
        joint_group=True,
    ),
    "chord": Algorithm((GRPO,), (UNCERTAIN_SFT,), trl_rollouts=True, fixed_gate=annealed_over_first_half),
    "chord_mu": Algorithm((GRPO,), (SFT,), trl_rollouts=True, fixed_gate=annealed_over_first_half),
    "chord_phi": Algorithm((GRPO,), (UNCERTAIN_SFT,), trl_rollouts=True, fixed_gate=small_share),
    "hpt": Algorithm((DR_GRPO,), (SFT,), trl_rollouts=True),
}.items():
    register(_name, _algorithm)
