"""Gates: from the solve rate of a prompt to the weights of its rollouts and its demonstration. Tensors only."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GateWeights(NamedTuple):
    """What each of P prompts is trained on: three tensors of shape (P,) with values in [0, inf).

    Source: arXiv 2509.04419, eq. 10 (`alpha`, `beta`); `off_policy_P` is the third arm of its Mix/GRPO ablation.
    """

    rollouts_P: Tensor
    demonstration_P: Tensor
    off_policy_P: Tensor


Gate = Callable[[Tensor, int], Sequence[Tensor | float]]
"""`(solve_rate_P, step) -> (rollouts_P, demonstration_P)`, or the three tensors of `GateWeights`.

A number in place of a tensor is the weight of every prompt."""


def solve_rates(rewards_P_G: Tensor, success_value: float | None) -> Tensor:
    """Fraction of each prompt's rollouts that solved it.

    Args:
        rewards_P_G: (P, G) rewards of one reward function; NaN marks a rollout that it could not score.
        success_value: a rollout with `reward >= success_value` solved the prompt; None: the rate is the mean reward.

    Returns:
        (P,) means over the scored rollouts; NaN where there is none.

    Source: arXiv 2509.04419, eq. 9.

    Example:
        >>> solve_rates(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, torch.nan]]), success_value=1.0)
        tensor([0.2500, 0.6667])
    """
    if success_value is None:
        return rewards_P_G.nanmean(dim=1)
    solved_P_G = (rewards_P_G >= success_value).to(rewards_P_G.dtype)
    return torch.where(rewards_P_G.isnan(), rewards_P_G, solved_P_G).nanmean(dim=1)


def switch_gate(
    solve_rate_P: Tensor, step: int, *, threshold: float, off_policy_threshold: float | None = None
) -> GateWeights:
    """Train on the demonstration where `solve_rate <= threshold`, on the rollouts elsewhere.

    Args:
        solve_rate_P: (P,) in [0, 1].
        step: optimizer step, unused: the switch does not change during training.
        threshold: solve rate up to which a prompt is trained on its demonstration by SFT.
        off_policy_threshold: if given, prompts above `threshold` and up to this solve rate are trained on their
            demonstration by off-policy policy gradient instead.

    Source: arXiv 2509.04419, eq. 10; the comparison is `<=` as in the reference code.

    Example:
        >>> weights = switch_gate(torch.tensor([0.0, 0.25, 0.5]), step=0, threshold=0.25)
        >>> weights.rollouts_P, weights.demonstration_P
        (tensor([0., 0., 1.]), tensor([1., 1., 0.]))
    """
    sft_P = solve_rate_P <= threshold
    on_demonstration_P = sft_P if off_policy_threshold is None else solve_rate_P <= off_policy_threshold
    off_policy_P = on_demonstration_P & ~sft_P
    return GateWeights(*(mask.to(solve_rate_P.dtype) for mask in (~on_demonstration_P, sft_P, off_policy_P)))


def linear_gate(solve_rate_P: Tensor, step: int) -> GateWeights:
    """Weight the rollouts by the solve rate and the demonstration by the remainder. Returns three (P,) tensors.

    Raises:
        ValueError: for a solve rate outside [0, 1], as the mean of a reward can be.

    Example:
        >>> linear_gate(torch.tensor([0.25]), step=0)[:2]
        (tensor([0.2500]), tensor([0.7500]))
    """
    known_P = solve_rate_P[~solve_rate_P.isnan()]
    if ((known_P < 0) | (known_P > 1)).any():
        raise ValueError(
            f"The linear gate needs solve rates in [0, 1], got {known_P.tolist()}. With gate_success_value unset the "
            "solve rate is the mean reward: set gate_success_value, or scale the reward to [0, 1]."
        )
    return GateWeights(solve_rate_P, 1 - solve_rate_P, torch.zeros_like(solve_rate_P))


def table_gate(solve_rate_P: Tensor, step: int, *, weights_by_count: Tensor) -> GateWeights:
    """Look up the weights by the number of the G rollouts that solved the prompt.

    Args:
        solve_rate_P: (P,); `solve_rate * G`, rounded, is the row of the table.
        step: optimizer step, unused.
        weights_by_count: (G + 1, 3); row k holds the three weights of a prompt that k rollouts solved.

    Example:
        >>> table = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
        >>> table_gate(torch.tensor([0.0, 0.5, 1.0]), step=0, weights_by_count=table).demonstration_P
        tensor([1.0000, 0.5000, 0.0000])
    """
    last = weights_by_count.size(0) - 1
    count_P = (solve_rate_P.nan_to_num() * last).round().long().clamp(0, last)
    return GateWeights(*weights_by_count.to(solve_rate_P)[count_P].unbind(dim=1))


def off_gate(solve_rate_P: Tensor, step: int) -> GateWeights:
    """Train on rollouts only: plain GRPO."""
    ones_P = torch.ones_like(solve_rate_P)
    return GateWeights(ones_P, torch.zeros_like(ones_P), torch.zeros_like(ones_P))


def constant_gate(solve_rate_P: Tensor, step: int, *, rollouts: float, demonstration: float) -> GateWeights:
    """The same weights for every prompt, whatever its solve rate: SFT, LUFFY, SRFT."""
    return GateWeights(
        torch.full_like(solve_rate_P, rollouts),
        torch.full_like(solve_rate_P, demonstration),
        torch.zeros_like(solve_rate_P),
    )


def annealed_gate(solve_rate_P: Tensor, step: int, *, steps: int, start: float = 0.9, end: float = 0.05) -> GateWeights:
    """CHORD's mu: the weight of demonstrations falls linearly from `start` to `end`; rollouts get the remainder.

    Args:
        solve_rate_P: (P,); only its shape is used.
        step: optimizer step, from 0.
        steps: optimizer steps until `end` is reached.
        start, end: weights in [0, 1].

    Source: CHORD, arXiv 2508.11408, section 3.2.

    Example:
        >>> annealed_gate(torch.tensor([0.5]), step=50, steps=100).demonstration_P
        tensor([0.4750])
    """
    mu = end + (start - end) * max(0.0, 1 - step / steps)
    return constant_gate(solve_rate_P, step, rollouts=1 - mu, demonstration=mu)


def gate_weights(gate: Gate, solve_rate_P: Tensor, has_demonstration_P: Tensor, step: int) -> GateWeights:
    """Ask a gate; prompts without a demonstration or a solve rate are trained on their rollouts only.

    Args:
        gate: a callable as described at `Gate`.
        solve_rate_P: (P,); NaN where no rollout could be scored.
        has_demonstration_P: (P,) bool.
        step: optimizer step.

    Returns:
        The gate's weights; rollouts 1 and demonstration 0 where there is no demonstration or no solve rate.

    Raises:
        ValueError: if the gate returned anything but two or three finite, non-negative (P,) tensors.

    Example:
        >>> def half_and_half(solve_rate_P, step):
        ...     return torch.full_like(solve_rate_P, 0.5), torch.full_like(solve_rate_P, 0.5)
        >>> solve_rate_P, has_demonstration_P = torch.tensor([0.0, 0.0]), torch.tensor([True, False])
        >>> gate_weights(half_and_half, solve_rate_P, has_demonstration_P, step=0)[:2]
        (tensor([0.5000, 1.0000]), tensor([0.5000, 0.0000]))
    """
    try:
        # A copy: a gate that writes into its argument must not change what is recorded.
        returned = [_weight_of(weight, solve_rate_P) for weight in gate(solve_rate_P.clone(), step)]
    except Exception as error:  # of a user's function
        raise ValueError(
            f"The gate {getattr(gate, '__name__', type(gate).__name__)!r} failed: {type(error).__name__}: {error}. It "
            "takes (solve_rate_P, step) and returns two or three tensors or numbers: the weights of the rollouts, of "
            "the demonstration and, optionally, of its off-policy gradient."
        ) from error
    known_P = has_demonstration_P & ~solve_rate_P.isnan()
    if len(returned) not in (2, 3) or any(weight.shape != solve_rate_P.shape for weight in returned):
        raise ValueError(
            "A gate must return the weights of the rollouts, of the demonstration and, optionally, of its off-policy "
            f"gradient: two or three tensors of the shape of the solve rates, {tuple(solve_rate_P.shape)}, or numbers. "
            f"Got shapes {[tuple(weight.shape) for weight in returned]}."
        )
    for weight in returned:
        if not (weight[known_P].isfinite() & (weight[known_P] >= 0)).all():
            raise ValueError(f"A gate's weights must be finite and at least 0, got {weight[known_P].tolist()}.")
    weights = GateWeights(*[*returned, torch.zeros_like(solve_rate_P)][:3])
    default = off_gate(solve_rate_P, step)
    return GateWeights(*(torch.where(known_P, chosen_P, default_P) for chosen_P, default_P in zip(weights, default)))


def _weight_of(weight: Any, solve_rate_P: Tensor) -> Tensor:
    # Only a number is broadcast: a tensor without dimensions is an element of a tensor that was returned alone.
    is_number = isinstance(weight, (int, float))
    return torch.full_like(solve_rate_P, weight) if is_number else torch.as_tensor(weight).to(solve_rate_P)


def check_gate(gate: Gate, group_size: int, device: torch.device) -> None:
    """Ask a user's gate once, for every solve rate of a group, so that it fails before a run and not within it.

    Args:
        gate: a callable as described at `Gate`. A copy of it is called: its state stays as it is.
        group_size: number of rollouts per prompt.
        device: device of the solve rates during training.

    Raises:
        ValueError: if it fails or returns anything but weights.
    """
    rate_P = torch.arange(group_size + 1, device=device) / group_size
    # Without a list, fork_rng warns where a process sees several GPUs.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        gate_weights(_copy(gate), rate_P, torch.ones_like(rate_P, dtype=torch.bool), step=0)


def _copy(gate: Gate) -> Gate:
    try:
        return copy.deepcopy(gate)
    except Exception:  # of a user's object
        return gate


def is_rollouts_only(weights: GateWeights) -> bool:
    """Whether every prompt is trained on its rollouts at full weight and on nothing else: a GRPO step."""
    return bool(
        (weights.rollouts_P == 1).all() and not weights.demonstration_P.any() and not weights.off_policy_P.any()
    )


def named_gate(
    name: str,
    *,
    threshold: float,
    off_policy_threshold: float | None,
    table: Mapping[int | str, Sequence[float]] | None,
    num_generations: int,
) -> Gate:
    """Build one of the gates a config can name: "switch", "linear", "table" or "off".

    Raises:
        ValueError: for any other name, or a table that does not cover 0 to `num_generations` solved rollouts.

    Example:
        >>> gate = named_gate("switch", threshold=0.0, off_policy_threshold=None, table=None, num_generations=8)
        >>> gate(torch.tensor([0.0, 0.125]), 0).demonstration_P
        tensor([1., 0.])
    """
    if name == "switch":
        return partial(switch_gate, threshold=threshold, off_policy_threshold=off_policy_threshold)
    if name == "table":
        return partial(table_gate, weights_by_count=_table_tensor(table, num_generations))
    simple: dict[str, Gate] = {"linear": linear_gate, "off": off_gate}
    if name not in simple:
        raise ValueError(
            f"gate must be 'switch', 'linear', 'table' or 'off', got {name!r}. Name a gate of your own by its "
            "dotted path, like my_module.my_gate, or pass it to HPTTrainer(gate=...): a callable (solve_rate_P, step) "
            "-> (rollouts_P, demonstration_P)."
        )
    return simple[name]


def _table_tensor(table: Mapping[int | str, Sequence[float]] | None, num_generations: int) -> Tensor:
    """(G + 1, 3) weights from the config's `{solved count: [a, b] or [a, b, off_policy]}`."""
    rows = {int(count): list(weights) for count, weights in (table or {}).items()}
    counts = list(range(num_generations + 1))

    def is_row(weights: list[float]) -> bool:
        return len(weights) in (2, 3) and all(isinstance(w, int | float) and 0 <= w < math.inf for w in weights)

    if sorted(rows) != counts or not all(map(is_row, rows.values())):
        raise ValueError(
            f"gate_table must hold two or three weights of at least 0 for each of 0 to {num_generations} solved "
            f"rollouts (num_generations is {num_generations}), got {dict(table or {})}. Example for two generations: "
            "{0: [0, 1], 1: [0.5, 0.5], 2: [1, 0]}."
        )
    return torch.tensor([(rows[count] + [0.0])[:3] for count in counts])
