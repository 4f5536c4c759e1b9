"""Old log-probabilities of the rollouts that will be trained on, and of no others.

TRL computes those of all rollouts before it asks for rewards. The completions are complete by then: rewards are
computed at this moment and kept until TRL asks for them, so that the gate's decision says which rows are needed.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate.utils import gather
from torch import Tensor

from hpt_trl.trainer.batches import RolloutBatch
from hpt_trl.trainer.image_columns import IMAGE_COLUMNS
from hpt_trl.trainer.row_packing import rollout_rows
from hpt_trl.trainer.step_log import Metrics

_DIFFERENCE, _RATIO = "sampling/sampling_logp_difference", "sampling/importance_sampling_ratio"


class NeededLogps:
    """Wraps TRL's `_get_per_token_logps_and_entropies` while a batch is generated."""

    def __init__(self) -> None:
        self._choose: Callable[[RolloutBatch], Tensor] | None = None
        self._is_needed_B: Tensor | None = None

    @contextmanager
    def choosing(self, choose: Callable[[RolloutBatch], Tensor] | None) -> Iterator[None]:
        """Compute only some rows within the block.

        Args:
            choose: returns (B,) bool, the rows of this process to compute; None: TRL computes all.
        """
        self._choose, self._is_needed_B = choose, None
        try:
            yield
        finally:
            self._choose = None

    def call(
        self, compute: Callable, model: Any, ids: Tensor, mask: Tensor, length: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Compute log-probabilities, of the chosen rows where rows are chosen.

        Args:
            compute: TRL's method.
            model, ids, mask, length, args, kwargs: what TRL called it with; `length` counts completion tokens.

        Returns:
            What TRL returns; where rows were chosen, (B, T) log-probabilities that are NaN in all other rows. TRL gives
            those an importance ratio of 1, as to tokens that vLLM could not score.
        """
        if self._choose is None:
            return compute(model, ids, mask, length, *args, **kwargs)
        columns = {"prompt_ids": ids[:, :-length], "prompt_mask": mask[:, :-length]}
        columns |= {"completion_ids": ids[:, -length:], "completion_mask": mask[:, -length:]}
        columns |= {name: kwargs[name] for name in IMAGE_COLUMNS if kwargs.get(name) is not None}
        self._is_needed_B = self._choose(cast(RolloutBatch, dict(columns)))
        rows = self._is_needed_B.nonzero().flatten()
        # Every process makes the same number of forward passes.
        most = int(gather(torch.tensor([len(rows)], device=ids.device)).max())
        if len(rows) == len(ids):
            return compute(model, ids, mask, length, *args, **kwargs)
        if not most:
            return ids.new_full((len(ids), length), torch.nan, dtype=torch.float32), None, None
        part = rollout_rows(columns, rows, most)
        others = {name: value for name, value in kwargs.items() if name not in IMAGE_COLUMNS}
        others |= {name: part[name] for name in IMAGE_COLUMNS if name in part}
        width = part["completion_ids"].size(1)
        part_ids = torch.cat([part["prompt_ids"], part["completion_ids"]], dim=1)
        part_mask = torch.cat([part["prompt_mask"], part["completion_mask"]], dim=1)
        logps = compute(model, part_ids, part_mask, width, *args, **others)[0]
        all_logps = logps.new_full((len(ids), length), torch.nan)
        all_logps[rows] = 0
        all_logps[rows, :width] = logps[: len(rows)]
        return all_logps, None, None

    def finish(self, batch: RolloutBatch, has_signal_B: Tensor, metrics: Metrics) -> None:
        """Give rows that were not computed log-probabilities of 0, and TRL's metrics of sampling the others' values.

        Every process must call it.

        Args:
            batch: the batch that TRL returned, changed in place.
            has_signal_B: (B,) bool, the rows that will be trained on.
            metrics: of this step.

        Raises:
            RuntimeError: if one of these rows was not computed.
        """
        is_needed_B, self._is_needed_B = self._is_needed_B, None
        if is_needed_B is None:
            return
        if (has_signal_B & ~is_needed_B).any():
            raise RuntimeError(
                "TRL's advantages are not those that hpt_trl expects of these rewards, so that rows lack their old "
                "log-probabilities. Install a tested release of TRL (see pyproject.toml)."
            )
        if not gather(~is_needed_B).any():
            return
        if "importance_sampling_ratio" in batch:
            _replace_sampling_metrics(metrics, batch, is_needed_B)
        old_B_T = cast(Tensor, batch["old_per_token_logps"])
        # Masked or not, NaN would reach the loss through a row that only fills up a forward pass.
        batch["old_per_token_logps"] = old_B_T.masked_fill(~is_needed_B.unsqueeze(1), 0.0)


def _replace_sampling_metrics(metrics: Metrics, batch: RolloutBatch, is_computed_B: Tensor) -> None:
    """Take TRL's metrics of sampling over the rows that were computed; NaN where there is none."""
    mask_B_T = batch["completion_mask"].bool() & is_computed_B.unsqueeze(1)
    tool_mask_B_T = batch.get("tool_mask")
    if tool_mask_B_T is not None:
        mask_B_T = mask_B_T & tool_mask_B_T.bool()
    differences_B_T = (cast(Tensor, batch["old_per_token_logps"]) - batch["sampling_per_token_logps"]).abs()
    ratios = batch["importance_sampling_ratio"]
    values = {
        _DIFFERENCE: differences_B_T[mask_B_T & ~differences_B_T.isnan()],
        _RATIO: ratios[mask_B_T] if ratios.shape == mask_B_T.shape else ratios[is_computed_B].flatten(),
    }
    for name, own in values.items():
        for statistic, value in _statistics(own).items():
            # Where TRL has logged it.
            if metrics.get(f"{name}/{statistic}"):
                metrics[f"{name}/{statistic}"][-1] = value


def _statistics(own: Tensor) -> dict[str, float]:
    """Minimum, mean and maximum of the values of all processes, NaN without any. Every process must call it."""
    least, most = own.new_full((1,), math.inf), own.new_full((1,), -math.inf)
    parts = [own.sum(), own.new_tensor(len(own)), torch.cat([own, least]).min(), torch.cat([own, most]).max()]
    sums, counts, minima, maxima = gather(torch.stack(parts).unsqueeze(0)).T.tolist()
    if not sum(counts):
        return dict.fromkeys(("min", "mean", "max"), math.nan)
    return {"min": min(minima), "mean": sum(sums) / sum(counts), "max": max(maxima)}
