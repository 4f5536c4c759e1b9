"""Errors that end a run and that the user can fix."""


class RunError(RuntimeError):
    """An error that ends a run and that the user can fix; the message is one paragraph that says how."""


class LocalRunError(RunError):
    """A `RunError` that the other processes do not know about."""
