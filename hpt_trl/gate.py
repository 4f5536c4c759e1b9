"""Gates, from the solve rate of a prompt to the weights of its rollouts and its demonstration."""

from hpt_trl.algorithm.gate import (
    Gate,
    GateWeights,
    annealed_gate,
    constant_gate,
    gate_weights,
    is_rollouts_only,
    linear_gate,
    named_gate,
    off_gate,
    solve_rates,
    switch_gate,
    table_gate,
)

__all__ = [
    "Gate",
    "GateWeights",
    "annealed_gate",
    "constant_gate",
    "gate_weights",
    "is_rollouts_only",
    "linear_gate",
    "named_gate",
    "off_gate",
    "solve_rates",
    "switch_gate",
    "table_gate",
]
