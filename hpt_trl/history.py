"""`gate.parquet`: what every prompt learned from, at every step."""

from hpt_trl.durability.gate_history import FILE_NAME, GateHistory

__all__ = ["FILE_NAME", "GateHistory"]
