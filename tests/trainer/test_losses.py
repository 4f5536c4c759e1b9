"""The losses of one forward pass, by hand."""

import pytest
import torch

from hpt_trl.algorithm.presets import ALGORITHMS
from hpt_trl.trainer.losses import demonstration_loss, rollout_losses, row_losses

LOSSES_B_T = torch.tensor([[2.0, 4.0, 9.0], [6.0, 9.0, 9.0]])
MASK_B_T = torch.tensor([[1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize(("loss_type", "expected"), [("grpo", [3.0, 6.0]), ("dr_grpo", [1.5, 1.5])])
def test_rows_are_averaged_as_trl_does(loss_type, expected):
    # grpo: (2 + 4) / 2 and 6 / 1 tokens; dr_grpo: over 4 tokens, the longest completion allowed.
    assert row_losses(LOSSES_B_T, MASK_B_T, loss_type, max_length=4).tolist() == expected


def test_what_a_tool_wrote_is_masked():
    batch = {
        "completion_mask": torch.ones(1, 3),
        "tool_mask": torch.tensor([[1, 0, 1]]),
        "advantages": torch.tensor([1.0]),
        "rewards": torch.tensor([1.0]),
        "rollout_weight": torch.tensor([1.0]),
    }
    logps_B_T = torch.tensor([[-1.0, -2.0, -3.0]])
    losses_B_T, mask_B_T = rollout_losses(logps_B_T, None, batch, ALGORITHMS["reinforce"])
    assert losses_B_T.tolist() == [[1.0, 0.0, 3.0]]
    assert mask_B_T.tolist() == [[1.0, 0.0, 1.0]]


def demonstrations(weights, off_policy=(0.0, 0.0)):
    return {
        "labels": torch.tensor([[-100, 5, 6], [-100, 7, -100]]),
        "demonstration_weight": torch.tensor(weights),
        "off_policy_weight": torch.tensor(off_policy),
        "demonstration_advantage": torch.tensor([1.0, 1.0]),
    }


LOGPS_B_T = torch.tensor([[-1.0, -3.0], [-2.0, -9.0]])


@pytest.mark.parametrize(("per_token", "expected"), [(False, 0.5 * (2.0 + 2.0)), (True, 0.5 * (4.0 + 2.0))])
def test_demonstrations_are_averaged_or_summed(per_token, expected):
    loss = demonstration_loss(
        LOGPS_B_T, torch.zeros(2, 2), demonstrations([1.0, 1.0]), ALGORITHMS["hpt"],
        sft_weight=0.5, per_token=per_token, loss_type="dr_grpo", max_length=4,
    )  # fmt: skip
    assert loss.total.item() == expected
    assert loss.joint is None
    # NLL 1 + 3 + 2, three trained tokens, two demonstrations.
    assert loss.sums_3.tolist() == [6.0, 3.0, 2.0]


def test_the_off_policy_weight_is_not_multiplied_by_sft_weight():
    loss = demonstration_loss(
        LOGPS_B_T, torch.zeros(2, 2), demonstrations([0.0, 0.0], (1.0, 0.0)), ALGORITHMS["hpt"],
        sft_weight=0.5, per_token=True, loss_type="dr_grpo", max_length=4,
    )  # fmt: skip
    shaped = [torch.tensor(logp).exp() / (torch.tensor(logp).exp() + 0.1) for logp in (-1.0, -3.0)]
    assert loss.total.item() == pytest.approx(-sum(shaped).item())


def test_a_demonstration_in_its_group_has_the_weight_of_a_rollout():
    loss = demonstration_loss(
        LOGPS_B_T, torch.zeros(2, 2), demonstrations([1.0, 0.0]), ALGORITHMS["luffy"],
        sft_weight=0.5, per_token=False, loss_type="dr_grpo", max_length=4,
    )  # fmt: skip
    shaped = [torch.tensor(logp).exp() / (torch.tensor(logp).exp() + 0.1) for logp in (-1.0, -3.0)]
    assert loss.total.item() == 0.0
    assert loss.joint.item() == pytest.approx(-sum(shaped).item() / 4)


@pytest.mark.parametrize("name", ["reinforce", "srft"])
def test_row_by_row_losses_have_the_gates_weight(name):
    batch = {
        "completion_mask": torch.ones(2, 2),
        "rewards": torch.tensor([0.0, 0.0]),
        "rollout_weight": torch.tensor([0.25, 1.0]),
    }
    losses_B_T, _ = rollout_losses(LOGPS_B_T, torch.zeros(2, 2), batch, ALGORITHMS[name])
    # A wrong rollout has advantage -1: its loss is the log-probability.
    assert losses_B_T.tolist() == [[-0.25, -0.75], [-2.0, -9.0]]


def test_group_advantages_carry_the_gates_weight_already():
    batch = {
        "completion_mask": torch.ones(2, 2),
        "advantages": torch.tensor([0.25, -1.0]),
        "rollout_weight": torch.tensor([0.25, 1.0]),
    }
    losses_B_T, _ = rollout_losses(LOGPS_B_T, None, batch, ALGORITHMS["dr_grpo"])
    # The ratio to the current policy is 1.
    assert losses_B_T.tolist() == [[-0.25, -0.25], [1.0, 1.0]]


def test_trls_correction_for_vllm_multiplies_the_losses():
    batch = {
        "completion_mask": torch.ones(2, 2),
        "advantages": torch.tensor([1.0, -1.0]),
        "rollout_weight": torch.ones(2),
        "importance_sampling_ratio": torch.tensor([[0.5, 2.0], [1.0, 3.0]]),
    }
    losses_B_T, _ = rollout_losses(LOGPS_B_T, None, batch, ALGORITHMS["dr_grpo"])
    assert losses_B_T.tolist() == [[-0.5, -2.0], [1.0, 3.0]]
