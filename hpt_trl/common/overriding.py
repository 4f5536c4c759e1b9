"""Attributes that have another value for the time of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def overriding(target: Any, **values: Any) -> Iterator[None]:
    """Set attributes of an object within the block, and restore them at its end, also after an error."""
    saved = {name: getattr(target, name) for name in values}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in saved.items():
            setattr(target, name, value)
