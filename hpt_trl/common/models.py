"""Models: errors while one is loaded, and weights that are not finite."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_MESSAGE = 300


def not_finite(model: torch.nn.Module) -> str | None:
    """Name of the first parameter with a NaN or infinite element among those of this process, or None.

    It costs one read of the weights, about as much as generating one token. Of sharded parameters, this process's
    shard is read; quantized ones are not.
    """
    names: list[str] = []
    flags: list[torch.Tensor] = []
    for name, parameter in model.named_parameters():
        local = _local_shard(parameter.detach(), parameter)
        if local.dtype in _FLOATS and local.numel() and not local.is_meta:
            names.append(name)
            # Both are NaN if an element is. `isfinite` on the parameter itself would need as much memory again.
            flags.append(torch.stack(torch.aminmax(local)).isfinite().all())
    if not flags:
        return None
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    return next((name for name, is_finite in zip(names, finite) if not is_finite), None)


def _local_shard(value: Any, parameter: Any) -> torch.Tensor:
    """The elements that this process holds: of DeepSpeed's ZeRO-3, of FSDP2, or all."""
    shard = getattr(parameter, "ds_tensor", value)
    return shard.to_local() if hasattr(shard, "to_local") else shard


@contextmanager
def reporting_load_errors(model: Any) -> Iterator[None]:
    """Raise ValueError where a model or its tokenizer cannot be loaded, unless the error names it already.

    Args:
        model: name or folder; if it is anything else, every error passes through.
    """
    try:
        yield
    # What a reader raises depends on the format and on where the damage is.
    except Exception as error:
        is_loading = any(frame.name == "from_pretrained" for frame in traceback.extract_tb(error.__traceback__))
        if not isinstance(model, str) or not is_loading or _explains_itself(error):
            raise
        message = " ".join(str(error).split())[:_MAX_MESSAGE]
        raise ValueError(
            f"The model {model!r} or its tokenizer could not be loaded: {type(error).__name__}: {message}. Its files "
            "are damaged or incomplete, do not match its config.json, or hold more than weights (a pickle that runs "
            "code is refused). Download it again, or convert it again, preferably to safetensors."
        ) from error


def _explains_itself(error: Exception) -> bool:
    # transformers' own OSErrors have no number and name the model; those of the system have one.
    is_upstreams = isinstance(error, OSError) and error.errno is None
    return is_upstreams or isinstance(error, (ImportError, torch.OutOfMemoryError))


def is_sampling_error(error: RuntimeError) -> bool:
    """Whether nothing could be sampled because logits are not finite.

    On a GPU, it is a device-side assertion, after which the process can no longer use the device.
    """
    return "probability tensor contains" in str(error) or "device-side assert" in str(error)
