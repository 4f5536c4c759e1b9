import pytest
import torch

from hpt_trl.algorithm.gate import (
    GateWeights,
    annealed_gate,
    check_gate,
    gate_weights,
    is_rollouts_only,
    linear_gate,
    named_gate,
    off_gate,
    solve_rates,
    switch_gate,
)

NAN = float("nan")


def table(**counts):
    return named_gate("table", threshold=0, off_policy_threshold=None, table=counts.pop("rows"), num_generations=2)


def test_solve_rate_counts_successes_among_the_scorable():
    rewards_P_G = torch.tensor([[1.0, 0.9, 2.0, 0.0], [1.0, NAN, NAN, 0.0], [NAN, NAN, NAN, NAN]])
    # 2 of 4 reach 1.0; 1 of 2 scorable; none scorable.
    torch.testing.assert_close(solve_rates(rewards_P_G, 1.0), torch.tensor([0.5, 0.5, NAN]), equal_nan=True)
    # The mean reward: 3.9 / 4; 1 / 2.
    torch.testing.assert_close(solve_rates(rewards_P_G, None), torch.tensor([0.975, 0.5, NAN]), equal_nan=True)


def test_switch_takes_the_demonstration_up_to_the_threshold_inclusive():
    weights = switch_gate(torch.tensor([0.0, 0.25, 0.26, 1.0]), 0, threshold=0.25)
    assert weights.rollouts_P.tolist() == [0, 0, 1, 1]
    assert weights.demonstration_P.tolist() == [1, 1, 0, 0]
    assert weights.off_policy_P.tolist() == [0, 0, 0, 0]


def test_three_way_switch():
    weights = switch_gate(torch.tensor([0.0, 0.125, 0.25, 0.375]), 0, threshold=0.0, off_policy_threshold=0.25)
    assert weights.rollouts_P.tolist() == [0, 0, 0, 1]
    assert weights.demonstration_P.tolist() == [1, 0, 0, 0]
    assert weights.off_policy_P.tolist() == [0, 1, 1, 0]


def test_linear_gate_shares_one_between_the_two():
    weights = linear_gate(torch.tensor([0.0, 0.25, 1.0]), 0)
    assert weights.rollouts_P.tolist() == [0.0, 0.25, 1.0]
    assert weights.demonstration_P.tolist() == [1.0, 0.75, 0.0]


def test_linear_gate_refuses_what_is_no_share():
    with pytest.raises(ValueError, match=r"needs solve rates in \[0, 1\], got \[-1.0\]"):
        linear_gate(torch.tensor([-1.0, NAN]), 0)


def test_table_gate_looks_up_the_solved_count():
    gate = table(rows={0: [0, 1], "1": [0.5, 0.5, 2.0], 2: [1, 0]})
    weights = gate(torch.tensor([0.5, 1.0, 0.0]), 0)
    assert weights.rollouts_P.tolist() == [0.5, 1.0, 0.0]
    assert weights.demonstration_P.tolist() == [0.5, 0.0, 1.0]
    assert weights.off_policy_P.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {0: [0, 1], 1: [1, 0]},
        {0: [0], 1: [1, 0], 2: [1, 0]},
        {0: [0, -1], 1: [1, 0], 2: [1, 0]},
        {0: [0, "x"], 1: [1, 0], 2: [1, 0]},
    ],
)
def test_an_incomplete_table_is_refused(rows):
    with pytest.raises(ValueError, match="0 to 2 solved rollouts"):
        table(rows=rows)


def test_unknown_gate_is_refused():
    with pytest.raises(ValueError, match="got 'swich'"):
        named_gate("swich", threshold=0, off_policy_threshold=None, table=None, num_generations=2)


def test_no_demonstration_or_no_solve_rate_leaves_the_gate_open():
    has_demonstration_P = torch.tensor([False, True, True])
    weights = gate_weights(
        lambda rate_P, step: switch_gate(rate_P, step, threshold=0.5),
        torch.tensor([0.0, NAN, 0.0]),
        has_demonstration_P,
        step=0,
    )
    assert weights.rollouts_P.tolist() == [1, 1, 0]
    assert weights.demonstration_P.tolist() == [0, 0, 1]


def test_callable_gets_solve_rate_and_step_and_may_return_two_weights():
    weights = gate_weights(
        lambda rate_P, step: (rate_P * 0 + step, 1 - rate_P), torch.tensor([0.25]), torch.tensor([True]), 7
    )
    assert [weight.tolist() for weight in weights] == [[7.0], [0.75], [0.0]]


@pytest.mark.parametrize(
    ("answer", "message"),
    [((torch.ones(2),), "two or three tensors"), ((torch.ones(1), torch.ones(2)), "two or three tensors")]
    + [((torch.ones(2), torch.tensor([0.0, bad])), "finite and at least 0") for bad in (-1.0, NAN, float("inf"))],
)
def test_a_broken_gate_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        gate_weights(lambda rate_P, step: answer, torch.zeros(2), torch.ones(2, dtype=torch.bool), 0)


def test_only_full_rollouts_and_nothing_else_is_rollouts_only():
    rate_P = torch.tensor([0.5, 1.0])
    assert is_rollouts_only(off_gate(rate_P, 0))
    assert not is_rollouts_only(linear_gate(rate_P, 0))
    assert not is_rollouts_only(switch_gate(rate_P, 0, threshold=0.5))


def test_every_solved_count_finds_its_row_of_the_table():
    """k / G * G is below k in float32 for 49 pairs up to G = 64, e.g. 7 of 23: it must be rounded, not cut off."""
    cut_off = 0
    for generations in range(2, 65):
        rows = {count: [count, 0.0, 0.0] for count in range(generations + 1)}
        gate = named_gate("table", threshold=0, off_policy_threshold=None, table=rows, num_generations=generations)
        solve_rate_P = solve_rates((torch.arange(generations) < torch.arange(generations + 1)[:, None]).float(), 1.0)
        assert gate(solve_rate_P, 0).rollouts_P.tolist() == list(range(generations + 1))
        cut_off += ((solve_rate_P * generations).long() != torch.arange(generations + 1)).sum().item()
    assert cut_off == 49


def test_an_off_policy_weight_beside_the_rollouts_is_not_plain_grpo():
    one_P, zero_P = torch.ones(1), torch.zeros(1)
    assert is_rollouts_only(GateWeights(one_P, zero_P, zero_P))
    assert not is_rollouts_only(GateWeights(one_P, zero_P, torch.tensor([0.5])))
    assert not is_rollouts_only(GateWeights(one_P, torch.tensor([0.5]), zero_P))


def test_a_solve_rate_above_1_is_no_share_either():
    with pytest.raises(ValueError, match=r"got \[0.5, 1.5\]"):
        linear_gate(torch.tensor([0.5, 1.5]), 0)


def test_the_annealed_gate_falls_to_its_end_and_stays_there():
    # 0.05 + 0.85 * (1 - step / 4): 0.9, 0.6875, 0.475, 0.2625, and 0.05 from step 4 on.
    for step, mu in enumerate((0.9, 0.6875, 0.475, 0.2625, 0.05, 0.05, 0.05)):
        weights = annealed_gate(torch.tensor([0.0, 1.0]), step, steps=4)
        assert weights.demonstration_P.tolist() == pytest.approx([mu, mu])
        assert weights.rollouts_P.tolist() == pytest.approx([1 - mu, 1 - mu])


def test_a_gate_is_not_held_to_what_it_says_of_a_prompt_without_a_solve_rate():
    weights = gate_weights(linear_gate, torch.tensor([NAN, 0.25]), torch.tensor([True, True]), step=0)
    assert weights.rollouts_P.tolist() == [1.0, 0.25]
    assert weights.demonstration_P.tolist() == [0.0, 0.75]


def test_a_number_is_the_weight_of_every_prompt():
    weights = gate_weights(lambda rate_P, step: (1, 0.5), torch.tensor([0.0, 1.0]), torch.tensor([True, True]), 0)
    assert [weight.tolist() for weight in weights] == [[1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]


def test_the_elements_of_one_tensor_are_not_taken_for_weights():
    with pytest.raises(ValueError, match=r"shape of the solve rates, \(2,\), or numbers. Got shapes \[\(\), \(\)\]"):
        gate_weights(lambda rate_P, step: rate_P, torch.zeros(2), torch.ones(2, dtype=torch.bool), 0)


def test_a_gate_is_tried_for_every_solve_rate_and_keeps_its_state():
    class Counting:
        def __init__(self):
            self.seen = []

        def __call__(self, rate_P, step):
            self.seen.append(rate_P.tolist())
            torch.rand(3)
            return 1.0 - rate_P, 1.0 / (0.5 - rate_P).abs()

    gate = Counting()
    state = torch.get_rng_state()
    # Of two rollouts, one solved: 1 / |0.5 - 0.5|.
    with pytest.raises(ValueError, match=r"finite and at least 0, got .*inf"):
        check_gate(gate, 2, torch.device("cpu"))
    check_gate(gate, 3, torch.device("cpu"))
    assert gate.seen == []
    assert torch.equal(torch.get_rng_state(), state)
