"""Which rows of a micro-batch carry signal, and the smallest tensors that hold them. Tensors only."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    # Prompts are padded on the left: the last column is always a real token.
    width = int(small["prompt_mask"].sum(dim=1).max()) if len(rows) else 1
    small["prompt_ids"], small["prompt_mask"] = small["prompt_ids"][:, -width:], small["prompt_mask"][:, -width:]
    return small


def demonstration_rows(batch: Mapping[str, Any], rows: Tensor) -> dict[str, Tensor]:
    """Prompt and demonstration of some rows as one sequence each, padded on the right.

    On the right, so that positions count from the prompt's first token whatever stands beside it in the micro-batch:
    models with absolute positions would see the padding on the left.

    Args:
        batch: `prompt_ids`, `prompt_mask` (B, P), left-padded; `demonstration_ids`, `demonstration_mask` (B, T),
            right-padded, the mask 1 on trained tokens.
        rows: (R,) row numbers; empty gives one row of two tokens with nothing to train on, which a rank without a
            demonstration forwards to stay in step with the others.

    Returns:
        `input_ids`, `attention_mask`, `labels` (R, L) for a causal LM; labels are -100 where nothing is learned.
    """
    sequences, labels = [], []
    for row in rows.tolist():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        mask = batch["demonstration_mask"][row]
        # What comes after the last trained token, padding included, cannot reach any loss.
        length = int(mask.nonzero().max()) + 1
        ids, trained = batch["demonstration_ids"][row][:length], mask[:length].bool()
        sequences.append(torch.cat([prompt, ids]))
        labels.append(torch.cat([torch.full_like(prompt, -100), ids.masked_fill(~trained, -100)]))
    if not sequences:
        sequences = [batch["prompt_ids"][0, -1:].repeat(2)]
        labels = [torch.full_like(sequences[0], -100)]
    attention = [torch.ones_like(sequence) for sequence in sequences]
    return {
        "input_ids": pad_sequence(sequences, batch_first=True),
        "attention_mask": pad_sequence(attention, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
