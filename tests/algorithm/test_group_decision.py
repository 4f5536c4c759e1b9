"""From rewards of complete groups to weights and advantages, by hand."""

from functools import partial

import pytest
import torch

from hpt_trl.algorithm.gate import switch_gate
from hpt_trl.algorithm.group_decision import Groups, decide, total_rewards
from hpt_trl.algorithm.presets import ALGORITHMS

NAN = torch.nan
# The first prompt is solved by 0 of 2 rollouts, the second by 1 of 2.
REWARDS_P_G = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
GROUPS = Groups(REWARDS_P_G, 2 * REWARDS_P_G, success_value=1.0)
BOTH = torch.tensor([True, True])
SWITCH = partial(switch_gate, threshold=0.0)


def test_hpt_switches_by_solve_rate_and_keeps_trls_advantages():
    decision = decide(GROUPS, BOTH, ALGORITHMS["hpt"], SWITCH, step=0)
    assert decision.weights.rollouts_P.tolist() == [0.0, 1.0]
    assert decision.weights.demonstration_P.tolist() == [1.0, 0.0]
    assert decision.advantages_B is None
    # 1 - (solved + 1) / (2 rollouts + 1)
    assert decision.demonstration_advantage_P.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_prompt_without_a_demonstration_or_a_solve_rate_is_trained_on_rollouts():
    unscored = Groups(torch.tensor([[0.0, 0.0], [NAN, NAN]]), REWARDS_P_G, success_value=1.0)
    decision = decide(unscored, torch.tensor([False, True]), ALGORITHMS["hpt"], SWITCH, step=0)
    assert decision.weights.rollouts_P.tolist() == [1.0, 1.0]
    assert decision.weights.demonstration_P.tolist() == [0.0, 0.0]
    # A gate that does not read solve rates decides for the second prompt all the same.
    mixed = decide(unscored, BOTH, ALGORITHMS["chord"], SWITCH, step=0, reads_solve_rates=False)
    assert mixed.weights.demonstration_P.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("scale", "second"), [(False, [0.0, -2.0, 2.0]), (True, [0.0, -1.0, 1.0])])
def test_a_demonstration_joins_its_group(scale, second):
    rewards_P = torch.tensor([NAN, 4.0])
    luffy = ALGORITHMS["luffy"]
    decision = decide(
        GROUPS, BOTH, luffy, luffy.prescribed_gate(None), 0, scale_joint_groups=scale, demonstration_reward_P=rewards_P
    )
    # Total rewards of the second group and its demonstration: 2, 0, 4, with mean 2 and sample std 2.
    assert decision.advantages_B.tolist() == pytest.approx([0.0, 0.0, second[0], second[1]], abs=1e-6)
    assert decision.demonstration_advantage_P.tolist() == pytest.approx([0.0, second[2]], abs=1e-6)


def test_an_algorithm_with_its_own_group_advantage_replaces_trls():
    dr_grpo = ALGORITHMS["dr_grpo"]
    decision = decide(GROUPS, ~BOTH, dr_grpo, dr_grpo.prescribed_gate(None), step=0)
    assert decision.advantages_B.tolist() == [0.0, 0.0, 1.0, -1.0]


def test_successes_are_of_rows():
    assert Groups(torch.tensor([[0.5, 1.0]]), REWARDS_P_G, success_value=1.0).successes().tolist() == [0.0, 1.0]
    assert Groups(torch.tensor([[0.5, 1.0]]), REWARDS_P_G, success_value=None).successes().tolist() == [0.5, 1.0]


def test_totals_are_weighted_and_nan_only_where_nothing_scored():
    rewards_B_F = torch.tensor([[1.0, 2.0], [NAN, 2.0], [NAN, NAN]])
    totals_B = total_rewards(rewards_B_F, torch.tensor([1.0, 0.5]))
    assert totals_B[:2].tolist() == [2.0, 1.0]
    assert totals_B[2].isnan()
