"""Errors that end a run."""

from hpt_trl.common.errors import LocalRunError, RunError

__all__ = ["LocalRunError", "RunError"]
