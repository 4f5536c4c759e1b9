"""Which forwards compute the rows that carry signal: dealt to ranks by tokens, cut to their own length.

Lists and tensors only; every rank that calls these functions with the same lengths gets the same answer.
"""

import heapq
from collections.abc import Mapping, Sequence
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


def deal(lengths: Sequence[int], loads: Sequence[int], most: int | None = None) -> list[list[int]]:
    """Deal rows to ranks so that every rank computes about as many tokens.

    The longest row goes first, each to the rank with the fewest tokens so far. The libraries that do this take neither
    what a rank has to do already nor a limit on rows.

    Args:
        lengths: tokens of each row.
        loads: tokens each rank computes anyhow.
        most: rows a rank may take; None: any number.

    Returns:
        Each rank's row numbers, longest first.

    Source: longest processing time first, Graham, SIAM J. Appl. Math. 17 (1969).

    Example:
        >>> deal([100, 10, 60, 30], loads=[0, 0])  # 100 tokens and 60 + 30 + 10
        [[0], [2, 3, 1]]
    """
    ranks: list[list[int]] = [[] for _ in loads]
    heap = [(load, rank) for rank, load in enumerate(loads)]
    heapq.heapify(heap)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        load, rank = heapq.heappop(heap)
        ranks[rank].append(row)
        if most is None or len(ranks[rank]) < most:
            heapq.heappush(heap, (load + lengths[row], rank))
    return ranks


def cut_to_budget(widths: Sequence[tuple[int, int]], budget: float) -> list[range]:
    """Cut rows into runs whose tokens, padding included, stay within a budget.

    Args:
        widths: tokens of each row left and right of where rows are aligned (prompt, completion), longest row first.
        budget: tokens of one run; a longer row is a run of its own.

    Returns:
        The runs, as ranges of positions.

    Example:
        >>> cut_to_budget([(2, 8), (2, 5), (2, 3)], budget=20)  # 2 x (2 + 8) tokens, then 2 + 3
        [range(0, 2), range(2, 3)]
    """
    runs, start, left, right = [], 0, 0, 0
    for row, (row_left, row_right) in enumerate(widths):
        left, right = max(left, row_left), max(right, row_right)
        if row > start and (row + 1 - start) * (left + right) > budget:
            runs.append(range(start, row))
            start, left, right = row, row_left, row_right
    return [*runs, range(start, len(widths))] if widths else []


def cut_into(widths: Sequence[tuple[int, int]], count: int) -> list[range]:
    """Cut rows into at most `count` runs, the largest of them as small as it can be.

    Args:
        widths: as in `cut_to_budget`.
        count: runs, at least 1.

    Example:
        >>> cut_into([(2, 8), (2, 2), (2, 2)], count=2)  # 10 and 2 x 4 tokens, rather than 2 x 10 and 4
        [range(0, 1), range(1, 3)]
    """
    low, high = 0, len(widths) * (max(left for left, _ in widths) + max(right for _, right in widths)) if widths else 0
    while low < high:
        middle = (low + high) // 2
        if len(cut_to_budget(widths, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return cut_to_budget(widths, high)


def concatenate(batches: Sequence[Mapping[str, Any]]) -> Batch:
    """Put micro-batches of one generation, which have the same widths, together again."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(values) if values[0].ndim else values[0]
        return [each for value in values for each in value] if isinstance(values[0], list) else values[0]

    return {key: join([batch[key] for batch in batches]) for key in batches[0]}


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
    """Some rollouts, cut to the longest of them, filled up to `count` rows.

    TRL gathers per-row statistics, so every rank must pass the same number of rows: the rest are copies whose
    completion mask is zero. A rank without any row of its own passes copies of one token.

    Args:
        batch: TRL's batch of B rows.
        rows: (R,) numbers of the rows to take, R <= count.
        count: rows to return, the same on every rank, at least 1.

    Returns:
        The batch of `count` rows.
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


def demonstration_rows(batch: Mapping[str, Any], rows: Tensor) -> Batch:
    """Prompt and demonstration of some rows as one sequence each, padded on the right.

    On the right, so that positions count from the prompt's first token whatever stands beside it in the forward: models
    with absolute positions would see the padding on the left.

    Args:
        batch: `prompt_ids`, `prompt_mask` (B, P), left-padded; `demonstration_ids`, `demonstration_mask` (B, T),
            right-padded, the mask 1 on trained tokens.
        rows: (R,) row numbers, at least one.

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
    attention = [torch.ones_like(sequence) for sequence in sequences]
    return {
        "input_ids": pad_sequence(sequences, batch_first=True),
        "attention_mask": pad_sequence(attention, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
