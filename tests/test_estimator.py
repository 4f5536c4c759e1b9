import math

import torch

from hpt_trl.estimator import (
    demonstration_advantages,
    demonstration_nll,
    shaped_off_policy_loss,
    token_means,
    token_sums,
)


def test_token_means_and_sums_are_of_unmasked_tokens():
    values_B_T = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    mask_B_T = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    # (1 + 3) / 2; 5 / 1; nothing
    assert token_means(values_B_T, mask_B_T).tolist() == [2.0, 5.0, 0.0]
    assert token_sums(values_B_T, mask_B_T).tolist() == [4.0, 5.0, 0.0]


def test_nll_is_minus_the_log_probability():
    logps = torch.tensor([[-0.1, -0.3]], requires_grad=True)
    loss = token_means(demonstration_nll(logps), torch.ones(1, 2)).sum()
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.2))  # (0.1 + 0.3) / 2 tokens
    torch.testing.assert_close(logps.grad, torch.tensor([[-0.5, -0.5]]))


def test_shaped_off_policy_gradient_is_that_of_p_over_p_plus_a_tenth():
    logps = torch.tensor([[math.log(0.4)]], requires_grad=True)
    shaped_off_policy_loss(logps).sum().backward()
    # d/dlog p of -p / (p + 0.1) is -0.1 p / (p + 0.1)^2 = -0.04 / 0.25
    torch.testing.assert_close(logps.grad, torch.tensor([[-0.16]]))


def test_shaped_loss_is_finite_where_the_policy_gives_no_probability():
    logps = torch.tensor([[-1e4]], requires_grad=True)
    loss = shaped_off_policy_loss(logps).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert logps.grad.item() == 0.0


def test_a_demonstration_joins_the_group_with_reward_one():
    # 2 of 4 solved: 1 - (2 + 1) / 5 = 0.4; all solved: 0; none: 1 - 1 / 5
    advantages = demonstration_advantages(torch.tensor([2.0, 4.0, 0.0]), torch.tensor([4, 4, 4]))
    torch.testing.assert_close(advantages, torch.tensor([0.4, 0.0, 0.8]))
