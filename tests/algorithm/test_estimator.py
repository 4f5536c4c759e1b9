import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import example, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from hpt_trl.algorithm.estimator import (
    Estimator,
    Tokens,
    clip,
    current_policy,
    given,
    group_advantages,
    log_likelihood,
    ratio,
    shaped,
    srft_demonstration,
    srft_rollout,
    token_means,
    token_sums,
    token_uncertainty,
)
from hpt_trl.algorithm.gate import linear_gate
from hpt_trl.algorithm.presets import ALGORITHMS, GRPO, OFF_POLICY, PPO, REINFORCE, SFT, Algorithm, register

EVERY = [
    pytest.param(estimator, id=f"{name}-{index}")
    for name, algorithm in ALGORITHMS.items()
    for index, estimator in enumerate(algorithm.rollouts + algorithm.demonstrations)
]
random_seeds = st.integers(0, 2**31)


def random_tokens(seed: int, rows: int = 8, length: int = 6, group_size: int = 4) -> Tokens:
    """Rows of unequal length, ratios around 1, rewards 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    logps = -torch.rand(rows, length, generator=generator, dtype=torch.float64) * 3
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    return Tokens(
        logps.requires_grad_(),
        (torch.arange(length) < lengths).double(),
        logps.detach() + torch.randn(rows, length, generator=generator, dtype=torch.float64) * 0.3,
        torch.randn(rows, generator=generator, dtype=torch.float64),
        torch.randint(0, 2, (rows,), generator=generator).double(),
        group_size,
        torch.rand(rows, length, generator=generator, dtype=torch.float64),
    )


def gradient(estimator: Estimator, tokens: Tokens) -> torch.Tensor:
    (found,) = torch.autograd.grad(estimator.token_losses(tokens).sum(), tokens.logps)
    return found


def test_token_means_and_sums_are_of_unmasked_tokens():
    values_B_T = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    mask_B_T = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    # (1 + 3) / 2; 5 / 1; nothing
    assert token_means(values_B_T, mask_B_T).tolist() == [2.0, 5.0, 0.0]
    assert token_sums(values_B_T, mask_B_T).tolist() == [4.0, 5.0, 0.0]


def test_sft_by_hand():
    tokens = Tokens(torch.tensor([[-0.1, -0.3]], requires_grad=True), torch.ones(1, 2))
    assert SFT.token_losses(tokens).tolist() == [pytest.approx([0.1, 0.3])]
    assert gradient(SFT, tokens).tolist() == [[-1.0, -1.0]]


def test_reinforce_by_hand():
    logps = torch.full((2, 1), -0.5, requires_grad=True)
    tokens = Tokens(logps, torch.ones(2, 1), rewards=torch.tensor([1.0, 0.0]))
    assert gradient(REINFORCE, tokens).tolist() == [[-1.0], [1.0]]  # up for the right row, down for the wrong one


def test_ppo_by_hand():
    # Ratios 1.5 and 0.5 with clip 0.2: of a good row the first is frozen, of a bad one the second.
    logps = torch.log(torch.tensor([[1.5, 0.5], [1.5, 0.5]])).requires_grad_()
    tokens = Tokens(logps, torch.ones(2, 2), torch.zeros(2, 2), torch.tensor([2.0, -2.0]))
    # -min(2 * 1.5, 2 * 1.2), -min(2 * 0.5, 2 * 0.8); -min(-2 * 1.5, -2 * 1.2), -min(-2 * 0.5, -2 * 0.8)
    torch.testing.assert_close(PPO.token_losses(tokens), torch.tensor([[-2.4, -1.0], [3.0, 1.6]]))
    torch.testing.assert_close(gradient(PPO, tokens), torch.tensor([[0.0, -1.0], [3.0, 0.0]]))


def test_group_advantages_by_hand():
    tokens = Tokens(torch.zeros(4, 1), torch.ones(4, 1), rewards=torch.tensor([1.0, 0.0, 1.0, 1.0]), group_size=2)
    assert group_advantages(tokens).tolist() == [0.5, -0.5, 0.0, 0.0]
    # The sample std of (1, 0) is 1 / sqrt(2).
    expected = 0.5 / (1 / math.sqrt(2) + 1e-6)
    assert group_advantages(tokens, scale=True).tolist() == pytest.approx([expected, -expected, 0.0, 0.0])


def test_srft_weights_by_hand():
    tokens = Tokens(
        torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [1.0, 0.0]]), rewards=torch.tensor([1.0, 0.0]),
        entropies=torch.tensor([[1.0, 3.0], [5.0, 9.0]]),
    )  # fmt: skip
    torch.testing.assert_close(srft_rollout(tokens), torch.tensor([0.1 * math.exp(2.0), -1.0]))
    torch.testing.assert_close(srft_demonstration(tokens), 0.5 * torch.tensor([-2.0, -5.0]).exp())


def test_chord_weighs_tokens_the_policy_is_unsure_of():
    tokens = Tokens(torch.tensor([[0.5, 0.9, 1e-9]]).log().requires_grad_(), torch.ones(1, 3))
    torch.testing.assert_close(token_uncertainty(tokens), torch.tensor([[0.25, 0.09, 1e-9]]))
    torch.testing.assert_close(gradient(ALGORITHMS["chord"].demonstrations[0], tokens), -token_uncertainty(tokens))


@drawn(random_seeds)
@settings(max_examples=25)
def test_gradient_is_the_product_of_the_four_parts(seed):
    """-1_stable * A / pi_ref * grad pi_theta, and d pi / d log pi = pi, for every unshaped likelihood."""
    tokens = random_tokens(seed)
    for estimator in (SFT, PPO, REINFORCE, GRPO, ALGORITHMS["cispo"].rollouts[0], ALGORITHMS["gspo"].rollouts[0]):
        advantage = estimator.advantage(tokens).unsqueeze(1)
        ratio = (tokens.logps - estimator.reference(tokens)).exp().detach()
        stable, _ = estimator.stabilization(ratio, advantage.expand_as(ratio))
        expected = torch.where(stable & tokens.mask.bool(), -advantage * ratio, 0.0)
        torch.testing.assert_close(gradient(estimator, tokens), expected)


@drawn(st.floats(-20, -1e-3))
@settings(max_examples=50)
def test_luffys_shape_derivative(logp):
    tokens = Tokens(torch.tensor([[logp]], dtype=torch.float64, requires_grad=True), torch.ones(1, 1))
    tokens = replace(tokens, advantages=torch.ones(1, dtype=torch.float64))
    p = math.exp(logp)
    # f'(p) = 0.1 / (p + 0.1)^2, times dp / dlog p = p
    assert gradient(OFF_POLICY, tokens).item() == pytest.approx(-0.1 / (p + 0.1) ** 2 * p)


@drawn(st.floats(1 / 128, 3.0, width=32), st.sampled_from([-1.0, 1.0]))
@example(float(torch.tensor(0.8)), -1.0)
@example(float(torch.tensor(1.2)), 1.0)
def test_clip_mask_is_zero_exactly_beyond_the_bound_on_the_side_of_the_advantage(ratio, advantage):
    # Everything in float32, in which the bounds themselves are 0.800000012 and 1.200000048.
    ratio_B_T, low, high = torch.tensor([[ratio]]), torch.tensor(0.8), torch.tensor(1.2)
    stable, frozen = clip(ratio_B_T, torch.tensor([[advantage]]))
    beyond = ratio_B_T > high if advantage > 0 else ratio_B_T < low
    assert torch.equal(stable, ~beyond)
    assert torch.equal(frozen, ratio_B_T.clamp(low, high))


@drawn(random_seeds, st.lists(st.floats(0, 1), min_size=2, max_size=2))
@settings(max_examples=25)
def test_soft_weights_interpolate_between_sft_and_rl(seed, rates):
    """By the linear gate a prompt's gradient is its solve rate times RL's and the rest times SFT's."""
    tokens = random_tokens(seed)
    weights = linear_gate(torch.tensor(rates, dtype=torch.float64), 0)
    rollouts_B, demonstration_B = (w.repeat_interleave(4).unsqueeze(1) for w in weights[:2])
    rl, sft = ALGORITHMS["hpt"].rollouts[0], ALGORITHMS["hpt"].demonstrations[0]
    loss = rollouts_B * rl.token_losses(tokens) + demonstration_B * sft.token_losses(tokens)
    (found,) = torch.autograd.grad(loss.sum(), tokens.logps)
    for prompt, rate in enumerate(rates):
        rows = slice(4 * prompt, 4 * prompt + 4)
        expected = rate * gradient(rl, tokens)[rows] + (1 - rate) * gradient(sft, tokens)[rows]
        torch.testing.assert_close(found[rows], expected)


@pytest.mark.parametrize("estimator", EVERY)
@drawn(seed=random_seeds)
@settings(max_examples=10)
def test_gradient_does_not_depend_on_order_padding_or_cut(estimator, seed):
    tokens = random_tokens(seed)
    whole = gradient(estimator, tokens)

    def rows(chosen, extra=0):
        def take(value):
            if not isinstance(value, torch.Tensor):
                return value
            value = value[chosen]
            padding = value.new_full((len(value), extra), -3.0)
            return torch.cat([value, padding], dim=1) if value.ndim == 2 else value

        mask = take(tokens.mask)
        mask[:, mask.size(1) - extra :] = 0
        taken = {name: take(value) for name, value in vars(tokens).items() if name not in ("mask", "logps")}
        return Tokens(take(tokens.logps).detach().requires_grad_(), mask, **taken)

    # Groups swap places; tokens of padding are added; each group is computed alone.
    swapped = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    torch.testing.assert_close(gradient(estimator, rows(swapped)), whole[swapped])
    torch.testing.assert_close(gradient(estimator, rows(slice(None), extra=3))[:, :6], whole)
    parts = [gradient(estimator, rows(slice(start, start + 4))) for start in (0, 4)]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("logp", "old_logp"), [(-1e4, -1e4), (-1e4, 0.0), (0.0, -1e4), (-69.1, 0.0), (0.0, -69.1), (-1e-8, -1e-8)]
)
def test_no_inf_or_nan_at_the_edges(estimator, dtype, logp, old_logp):
    """Log-probabilities down to -1e4, ratios of 1e30 and 1e-30 (69.1 nats), a row without tokens, groups of one."""
    tokens = Tokens(
        torch.full((2, 3), logp, dtype=dtype, requires_grad=True),
        torch.tensor([[1, 1, 0], [0, 0, 0]]),
        torch.full((2, 3), old_logp, dtype=dtype),
        torch.tensor([1.0, -1.0]),
        torch.tensor([1.0, 0.0]),
        group_size=1,
        entropies=torch.full((2, 3), 10.0),
    )
    losses = estimator.token_losses(tokens)
    assert losses.isfinite().all()
    assert gradient(estimator, tokens).isfinite().all()
    assert losses[tokens.mask == 0].abs().sum() == 0


def test_ratios_of_1e30_come_through():
    tokens = Tokens(torch.zeros(1, 1, requires_grad=True), torch.ones(1, 1), torch.tensor([[-30 * math.log(10)]]))
    unclipped = replace(PPO, stabilization=partial(clip, epsilon_high=math.inf))
    losses = unclipped.token_losses(replace(tokens, advantages=torch.ones(1)))
    assert losses.item() == pytest.approx(-1e30, rel=1e-4)


@pytest.mark.parametrize("likelihood", [ratio, log_likelihood, shaped])
def test_the_clip_acts_on_the_ratio_whatever_the_likelihood(likelihood):
    # Ratios 1.5, 1 and 0.5: of a good row the first is frozen, of a bad one the last.
    logps = torch.log(torch.tensor([[1.5, 1.0, 0.5]] * 2)).requires_grad_()
    tokens = Tokens(logps, torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([1.0, -1.0]))
    learns = gradient(replace(PPO, likelihood=likelihood), tokens) != 0
    assert learns.tolist() == [[False, True, True], [True, True, False]]


def test_unscorable_rollouts_teach_nothing():
    tokens = Tokens(
        torch.full((4, 1), -0.5, requires_grad=True), torch.ones(4, 1), group_size=4, entropies=torch.ones(4, 1),
        rewards=torch.tensor([1.0, 0.0, 1.0, math.nan]),
    )  # fmt: skip
    for algorithm in ("reinforce", "srft", "grpo", "dr_grpo"):
        assert gradient(ALGORITHMS[algorithm].rollouts[0], tokens)[3].item() == 0
    # The mean of the three others.
    assert group_advantages(tokens).tolist() == pytest.approx([1 / 3, -2 / 3, 1 / 3, 0.0])


def test_padding_may_hold_anything():
    logps = torch.tensor([[-1.0, float("nan")]], requires_grad=True)
    tokens = Tokens(logps, torch.tensor([[1, 0]]), torch.tensor([[-1.0, float("-inf")]]), torch.ones(1))
    assert PPO.token_losses(tokens).tolist() == [[-1.0, 0.0]]
    unlikely = replace(tokens, logps=torch.tensor([[-1.0, -math.inf]], requires_grad=True))
    for estimator in (PPO, SFT, OFF_POLICY):
        assert gradient(estimator, unlikely).isfinite().all()


def test_a_part_and_a_preset_of_ones_own_take_a_few_lines():
    def squared_uncertainty(tokens):
        return token_uncertainty(tokens) ** 2

    mine = Estimator(current_policy, squared_uncertainty, log_likelihood)
    register("mine", Algorithm(rollouts=(GRPO,), demonstrations=(mine,)))
    try:
        tokens = Tokens(torch.tensor([[0.5]]).log().requires_grad_(), torch.ones(1, 1))
        assert gradient(ALGORITHMS["mine"].demonstrations[0], tokens).item() == pytest.approx(-0.0625)
        with pytest.raises(ValueError, match="'mine' already"):
            register("mine", Algorithm())
    finally:
        del ALGORITHMS["mine"]


def test_what_an_estimator_lacks_is_named():
    with pytest.raises(ValueError, match=r"needs Tokens\(advantages=...\)"):
        given(Tokens(torch.zeros(1, 1), torch.ones(1, 1)))


# Two rows of two tokens with ratios 1.5 and 0.75 to the old policy; the first row is right and the second wrong: their
# advantages are 1/2 and -1/2, over a standard deviation of 1 / sqrt(2) where they are scaled.
P, OLD = [0.3, 0.15], 0.2
SCALED = 0.5 / (1 / math.sqrt(2) + 1e-6)
SEQUENCE_RATIO = math.sqrt(1.5 * 0.75)
SHAPED = [0.1 / (p + 0.1) ** 2 * p for p in P]  # d p / (p + 0.1), dp = p dlog p
BY_HAND_AT_DEFAULTS = {
    "sft-demonstration-0": [[-1.0, -1.0], [-1.0, -1.0]],
    "reinforce-rollout-0": [[-1.0, -1.0], [1.0, 1.0]],
    # 1.5 is above 1.2 in the row to be raised, 0.75 below 0.8 in the row to be lowered.
    "ppo-rollout-0": [[0.0, -0.75 * 2.0], [1.5 * 3.0, 0.0]],
    "grpo-rollout-0": [[0.0, -0.75 * SCALED], [1.5 * SCALED, 0.0]],
    "dr_grpo-rollout-0": [[0.0, -0.75 / 2], [1.5 / 2, 0.0]],
    "cispo-rollout-0": [[-1.2 * SCALED, -0.75 * SCALED], [1.2 * SCALED, 0.75 * SCALED]],
    # The sequences' ratio of 1.06 is above 1 + 4e-4.
    "gspo-rollout-0": [[0.0, 0.0], [SEQUENCE_RATIO * SCALED] * 2],
    "luffy-rollout-0": [[-1.5 / 2, -0.75 / 2], [1.5 / 2, 0.75 / 2]],
    "luffy-demonstration-0": [[-SHAPED[0] / 2, -SHAPED[1] / 2], [SHAPED[0] / 2, SHAPED[1] / 2]],
    # Entropies of 2 nats in the first row, 1 in the second.
    "srft-rollout-0": [[-0.1 * math.exp(2.0)] * 2, [1.0, 1.0]],
    "srft-demonstration-0": [[-0.5 * math.exp(-2.0)] * 2, [-0.5 * math.exp(-1.0)] * 2],
    "srft-demonstration-1": [[-SHAPED[0] / 2, -SHAPED[1] / 2], [SHAPED[0] / 2, SHAPED[1] / 2]],
    "chord-rollout-0": [[0.0, -0.75 * SCALED], [1.5 * SCALED, 0.0]],
    "chord-demonstration-0": [[-p * (1 - p) for p in P]] * 2,
    "chord_mu-rollout-0": [[0.0, -0.75 * SCALED], [1.5 * SCALED, 0.0]],
    "chord_mu-demonstration-0": [[-1.0, -1.0], [-1.0, -1.0]],
    "chord_phi-rollout-0": [[0.0, -0.75 * SCALED], [1.5 * SCALED, 0.0]],
    "chord_phi-demonstration-0": [[-p * (1 - p) for p in P]] * 2,
    "hpt-rollout-0": [[0.0, -0.75 / 2], [1.5 / 2, 0.0]],
    "hpt-demonstration-0": [[-1.0, -1.0], [-1.0, -1.0]],
}
PRESETS = {
    f"{name}-{kind}-{index}": estimator
    for name, algorithm in ALGORITHMS.items()
    for kind, estimators in (("rollout", algorithm.rollouts), ("demonstration", algorithm.demonstrations))
    for index, estimator in enumerate(estimators)
}


def test_every_preset_is_calculated_by_hand():
    assert PRESETS.keys() == BY_HAND_AT_DEFAULTS.keys()


@pytest.mark.parametrize("name", BY_HAND_AT_DEFAULTS)
def test_the_default_constants_of_every_preset(name):
    tokens = Tokens(
        torch.tensor([P, P], dtype=torch.float64).log().requires_grad_(), torch.ones(2, 2),
        old_logps=torch.full((2, 2), OLD, dtype=torch.float64).log(),
        advantages=torch.tensor([2.0, -3.0], dtype=torch.float64), rewards=torch.tensor([1.0, 0.0]), group_size=2,
        entropies=torch.tensor([[1.0, 3.0], [1.0, 1.0]], dtype=torch.float64),
    )  # fmt: skip
    expected = torch.tensor(BY_HAND_AT_DEFAULTS[name], dtype=torch.float64)
    # The advantages are computed from rewards in float32.
    torch.testing.assert_close(gradient(PRESETS[name], tokens), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "learns"),
    [(1.00039, [True, True]), (1.00041, [False, True]), (0.99971, [True, True]), (0.99969, [True, False])],
)
def test_gspo_clips_at_3_and_4_in_ten_thousand(ratio, learns):
    logps = torch.full((2, 1), math.log(ratio), dtype=torch.float64, requires_grad=True)
    tokens = Tokens(
        logps, torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.float64), rewards=torch.tensor([1.0, 0.0]), group_size=2
    )
    assert (gradient(ALGORITHMS["gspo"].rollouts[0], tokens) != 0).flatten().tolist() == learns


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("estimator", EVERY)
def test_half_precision_is_computed_in_float32(estimator, dtype):
    exact = random_tokens(0)
    columns = {name: value.float() for name, value in vars(exact).items() if isinstance(value, torch.Tensor)}
    half = Tokens(**columns | {name: columns[name].to(dtype) for name in ("logps", "old_logps")}, group_size=4)
    full = replace(half, logps=half.logps.float(), old_logps=half.old_logps.float())
    losses = estimator.token_losses(half)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, estimator.token_losses(full))
