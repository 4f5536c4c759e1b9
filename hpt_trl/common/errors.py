"""Errors that end a run and that the user can fix."""


class RunError(RuntimeError):
    """A fault that ends a run and that the user can fix; the message is one paragraph that says how."""


class LocalRunError(RunError):
    """A fault that only this process knows of."""
