"""Old log-probabilities, computed after the rewards are known and only for rows that need them.

TRL computes them for all rows before it asks for rewards. Where only some rows will be trained on, the computation is
deferred.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from accelerate.utils import gather
from torch import Tensor

from hpt_trl.trainer.batches import RolloutBatch
from hpt_trl.trainer.image_columns import IMAGE_COLUMNS
from hpt_trl.trainer.row_packing import rollout_rows

_COLUMNS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


class DeferredLogps:
    """Wraps TRL's `_get_per_token_logps_and_entropies` while a batch is generated."""

    def __init__(self) -> None:
        self._is_recording = False
        self._compute: Callable[..., Any] | None = None  # of a model, ids, mask and length, with TRL's options

    @contextmanager
    def recording(self, enabled: bool) -> Iterator[None]:
        """Defer what is computed within the block, if enabled."""
        self._is_recording, self._compute = enabled, None
        try:
            yield
        finally:
            self._is_recording = False

    def call(
        self, compute: Callable, model: Any, ids: Tensor, mask: Tensor, length: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Compute log-probabilities, or defer it and return zeros in their place.

        Args:
            compute: TRL's method.
            model, ids, mask, length, args, kwargs: what TRL called it with; `length` counts completion tokens.

        Raises:
            RuntimeError: if TRL asks twice, which it does not with the options for which the computation is deferred.
        """
        if not self._is_recording:
            return compute(model, ids, mask, length, *args, **kwargs)
        if self._compute is not None:
            raise RuntimeError(
                "TRL computed log-probabilities twice per generation, but hpt_trl can defer only one computation. "
                "Install a tested release of TRL (see pyproject.toml)."
            )
        self._compute = partial(self._run, compute, model, ids, mask, length, args, kwargs)
        return ids.new_zeros(len(ids), length, dtype=torch.float32), None, None

    @staticmethod
    def _run(compute, model, ids, mask, length, args, kwargs, subset: RolloutBatch | None) -> Tensor:
        if subset is not None:
            ids = torch.cat([subset["prompt_ids"], subset["completion_ids"]], dim=1)
            mask = torch.cat([subset["prompt_mask"], subset["completion_mask"]], dim=1)
            length = subset["completion_ids"].size(1)
            kwargs = {name: value for name, value in kwargs.items() if name not in IMAGE_COLUMNS}
            kwargs |= {name: cast(dict, subset)[name] for name in IMAGE_COLUMNS if name in subset}
        return compute(model, ids, mask, length, *args, **kwargs)[0]

    @torch.no_grad()
    def compute_into(self, batch: RolloutBatch, is_needed_B: Tensor | None) -> None:
        """Fill in the deferred `old_per_token_logps` of a batch.

        Args:
            batch: the batch that TRL returned.
            is_needed_B: (B,) bool, the rows to compute, others keep zeros; None: all, bitwise identical to TRL's.
        """
        if self._compute is None:
            return
        compute, self._compute = self._compute, None
        if is_needed_B is None:
            batch["old_per_token_logps"] = compute(None)
            return
        rows = is_needed_B.nonzero().flatten()
        # Every process makes the same number of forward passes.
        most = int(gather(torch.tensor([len(rows)], device=rows.device)).max())
        if most:
            columns = {name: cast(dict, batch)[name] for name in (*_COLUMNS, *IMAGE_COLUMNS) if name in batch}
            logps = compute(rollout_rows(columns, rows, most))
            cast(Tensor, batch["old_per_token_logps"])[rows, : logps.size(1)] = logps[: len(rows)].float()
