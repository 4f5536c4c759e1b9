"""Which rows of a micro-batch carry signal, and the smallest tensors that hold them. Tensors only."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
"""TRL's batch: tensors and lists whose first dimension is the row, scalars (0-dim tensors), and None."""

# Columns of TRL's batch that run over completion tokens, in TRL's right-padded layout.
_COMPLETION_KEYS = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)


def select_rows(batch: Mapping[str, Any], rows: Tensor) -> Batch:
    """Take some rows of every per-row entry; scalars stay as they are.

    Args:
        batch: entries of B rows, 0-dim tensors, or None.
        rows: (R,) row numbers; may be empty or repeat a row.
    """

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows] if value.ndim else value
        return [value[row] for row in rows.tolist()] if isinstance(value, list) else value

    return {key: take(value) for key, value in batch.items()}


def trim_left(ids_B_T: Tensor, mask_B_T: Tensor) -> tuple[Tensor, Tensor]:
    """Cut columns that are padding in every row off the left; at least one column stays."""
    width = max(1, int(mask_B_T.sum(dim=1).max()))
    return ids_B_T[:, -width:], mask_B_T[:, -width:]


def rollout_rows(batch: Mapping[str, Any], rows: Tensor, count: int) -> Batch:
    """Cut a micro-batch down to the rollouts that carry signal, filled up to `count` rows.

    TRL gathers per-row statistics, so every rank must pass the same number of rows: the rest are copies whose
    completion mask is zero. A rank without any row of its own passes copies of one token.

    Args:
        batch: TRL's batch of B rows.
        rows: (R,) numbers of the rows with signal, R <= count.
        count: rows to return, the same on every rank, at least 1.

    Returns:
        The batch of `count` rows, prompts and completions cut to the longest that carries signal.
    """
    filler = rows.new_full((count - len(rows),), int(rows[0]) if len(rows) else 0)
    small = select_rows(batch, torch.cat([rows, filler]))
    small["completion_mask"] = small["completion_mask"].clone()
    small["completion_mask"][len(rows) :] = 0
    width = max(1, int(small["completion_mask"].sum(dim=1).max()))
    for key in _COMPLETION_KEYS:
        # Sequence-level ratios are (B, 1) and hold for the whole row.
        if small.get(key) is not None and small[key].size(1) > 1:
            small[key] = small[key][:, :width]
    if len(rows):
        small["prompt_ids"], small["prompt_mask"] = trim_left(small["prompt_ids"], small["prompt_mask"])
    else:
        # Prompts are padded on the left: the last column is always a real token.
        small["prompt_ids"], small["prompt_mask"] = small["prompt_ids"][:, -1:], small["prompt_mask"][:, -1:]
    return small


def attention_from_loss_mask(mask_B_T: Tensor) -> Tensor:
    """1 up to each row's last trained token: what comes after it cannot reach any loss. Returns (B, T)."""
    return (mask_B_T.flip(1).cumsum(1).flip(1) > 0).to(mask_B_T.dtype)


def demonstration_rows(batch: Mapping[str, Any], rows: Tensor) -> Batch:
    """Prompt and demonstration of some rows as one padded sequence each.

    Args:
        batch: `prompt_ids`, `prompt_mask` (B, P), left-padded; `demonstration_ids`, `demonstration_mask` (B, T),
            right-padded, the mask 1 on trained tokens.
        rows: (R,) row numbers; empty gives one row of two tokens with nothing to train on, which a rank without a
            demonstration forwards to stay in step with the others.

    Returns:
        `input_ids`, `attention_mask`, `labels` (R, P' + T') for a causal LM, and `mask` (R, T') of trained tokens.
    """
    small = select_rows(batch, rows if len(rows) else rows.new_zeros(1))
    mask = small["demonstration_mask"] if len(rows) else torch.zeros_like(small["demonstration_mask"])
    attention = attention_from_loss_mask(mask)
    width = max(1, int(attention.sum(dim=1).max()))
    ids, mask, attention = (tensor[:, :width] for tensor in (small["demonstration_ids"], mask, attention))
    if len(rows):
        prompt_ids, prompt_mask = trim_left(small["prompt_ids"], small["prompt_mask"])
    else:
        prompt_ids, prompt_mask = small["prompt_ids"][:, -1:], small["prompt_mask"][:, -1:]
    no_label = torch.full_like(prompt_ids, -100)
    return {
        "input_ids": torch.cat([prompt_ids, ids], dim=1),
        "attention_mask": torch.cat([prompt_mask, attention], dim=1),
        "labels": torch.cat([no_label, ids.masked_fill(mask == 0, -100)], dim=1),
        "mask": mask,
    }
