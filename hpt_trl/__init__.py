"""Hybrid Post-Training on TRL: every prompt learns from its own rollouts or from a demonstration."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpt_trl.config import HPTConfig
    from hpt_trl.trainer.hpt import HPTTrainer

__version__ = "0.1.0"
__all__ = ["HPTConfig", "HPTTrainer", "__version__"]

_HOMES = {"HPTConfig": "hpt_trl.config", "HPTTrainer": "hpt_trl.trainer.hpt"}


def __getattr__(name: str) -> Any:
    # torch, transformers and TRL take seconds to import: load them when used.
    if name not in _HOMES:
        raise AttributeError(f"module 'hpt_trl' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
