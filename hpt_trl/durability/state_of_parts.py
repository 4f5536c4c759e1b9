"""State of parts that a user may pass, such as a gate: saved with each checkpoint, or missed with a warning."""

import dis
import io
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from hpt_trl.common.logs import get_logger

logger = get_logger(__name__)

_CONTAINERS = (list, dict, set, bytearray, torch.Tensor)


def states(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The `state_dict()` of each part that has one, by name.

    Raises:
        ValueError: if a state holds anything but tensors, numbers, strings, and lists and dicts of them.
    """
    found = {name: _owner(part).state_dict() for name, part in parts.items() if has_state_dict(part)}
    for name, state in found.items():
        buffer = io.BytesIO()
        try:
            torch.save(state, buffer)
            buffer.seek(0)
            torch.load(buffer, weights_only=True)
        except Exception as error:  # of pickle, whatever the state holds
            raise ValueError(
                f"The state_dict of the {name} cannot be part of a checkpoint: {str(error).splitlines()[0]} It may "
                "hold tensors, numbers, strings, and lists and dicts of them."
            ) from error
    return found


def restore_states(parts: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Give each part the state that `states` returned for it; a part that has none there keeps its own."""
    for name, part in parts.items():
        if name in found and has_state_dict(part):
            _owner(part).load_state_dict(found[name])


def has_state_dict(part: Any) -> bool:
    """Whether a part, or the object whose method it is, has `state_dict` and `load_state_dict`."""
    return all(callable(getattr(_owner(part), name, None)) for name in ("state_dict", "load_state_dict"))


def warn_of_lost_state(parts: Mapping[str, Any]) -> None:
    """Warn of callables that seem to keep state, and have no `state_dict` and `load_state_dict`."""
    for name, part in parts.items():
        if part is not None and not has_state_dict(part) and _seems_stateful(part):
            logger.warning(
                f"The {name} {getattr(part, '__name__', type(part).__name__)!r} seems to keep state, which checkpoints "
                "do not hold: a resumed run is not exact. Give it the methods state_dict and load_state_dict."
            )


def _owner(part: Any) -> Any:
    """The object whose method a part is, or the part."""
    return part.__self__ if isinstance(part, types.MethodType) else part


def _seems_stateful(part: Any) -> bool:
    if isinstance(part, partial):
        return _seems_stateful(part.func)
    owner = _owner(part)
    if not isinstance(owner, types.FunctionType):
        return not isinstance(owner, (type, types.BuiltinFunctionType)) and bool(getattr(owner, "__dict__", None))
    written = {
        instruction.argval
        for instruction in dis.get_instructions(owner)
        if instruction.opname in ("STORE_DEREF", "STORE_GLOBAL")
    }
    # A local variable that an inner function reads is written in the same way, and is not kept.
    kept = written - set(owner.__code__.co_cellvars)
    holds = any(isinstance(cell.cell_contents, _CONTAINERS) for cell in owner.__closure__ or ())
    return bool(kept) or holds or bool(vars(owner).keys() - {"__wrapped__"})
