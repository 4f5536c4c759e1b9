"""Errors that end a run and that the user can fix."""

from hpt_trl.common.masking import mask_tokens


class RunError(RuntimeError):
    """An error that ends a run and that the user can fix; the message is one paragraph that says how.

    Secrets are masked: it may quote the error of a reward function.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(mask_tokens(message))


class LocalRunError(RunError):
    """A `RunError` that the other processes do not know about."""
