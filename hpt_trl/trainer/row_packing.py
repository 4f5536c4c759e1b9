"""Assign rows to ranks and forward passes by their token counts, and cut rows to their own length.

Lists and tensors only; every rank that calls these functions with the same lengths gets the same result.
"""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hpt_trl.trainer.image_columns import IMAGE_COLUMNS, TOKEN_TYPES, has_images, images_by_row, joined_images

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


def assign_rows(lengths: Sequence[int], initial_tokens: Sequence[int], max_rows: int | None = None) -> list[list[int]]:
    """Assign rows to ranks so that every rank computes about as many tokens.

    The longest row goes first, each to the rank with the fewest tokens so far. The libraries for this problem support
    neither tokens that a rank already has nor a limit on rows.

    Args:
        lengths: tokens of each row.
        initial_tokens: tokens that each rank computes in any case.
        max_rows: maximum number of rows per rank; None: no limit.

    Returns:
        Each rank's row numbers, longest first.

    Source: longest processing time first, Graham, SIAM J. Appl. Math. 17 (1969).

    Example:
        >>> assign_rows([100, 10, 60, 30], initial_tokens=[0, 0])  # 100 tokens and 60 + 30 + 10
        [[0], [2, 3, 1]]
    """
    ranks: list[list[int]] = [[] for _ in initial_tokens]
    heap = [(tokens, rank) for rank, tokens in enumerate(initial_tokens)]
    heapq.heapify(heap)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        tokens, rank = heapq.heappop(heap)
        ranks[rank].append(row)
        if max_rows is None or len(ranks[rank]) < max_rows:
            heapq.heappush(heap, (tokens + lengths[row], rank))
    return ranks


def cut_to_budget(widths: Sequence[tuple[int, int]], budget: float) -> list[range]:
    """Cut rows into chunks whose tokens, padding included, stay within a budget.

    Args:
        widths: tokens of each row left and right of where rows are aligned (prompt, completion), longest row first.
        budget: maximum number of tokens per chunk; a longer row is a chunk of its own.

    Returns:
        The chunks, as ranges of positions.

    Example:
        >>> cut_to_budget([(2, 8), (2, 5), (2, 3)], budget=20)  # 2 x (2 + 8) tokens, then 2 + 3
        [range(0, 2), range(2, 3)]
    """
    chunks: list[range] = []
    start = left = right = 0
    for row, (row_left, row_right) in enumerate(widths):
        left, right = max(left, row_left), max(right, row_right)
        if row > start and (row + 1 - start) * (left + right) > budget:
            chunks.append(range(start, row))
            start, left, right = row, row_left, row_right
    return [*chunks, range(start, len(widths))] if widths else []


def cut_into(widths: Sequence[tuple[int, int]], count: int) -> list[range]:
    """Cut rows into at most `count` chunks so that the largest chunk is as small as possible.

    Args:
        widths: as in `cut_to_budget`.
        count: number of chunks, at least 1.

    Example:
        >>> cut_into([(2, 8), (2, 2), (2, 2)], count=2)  # 10 and 2 x 4 tokens, rather than 2 x 10 and 4
        [range(0, 1), range(1, 3)]
    """
    if not widths:
        return []
    low, high = 0, _padded_tokens(widths)
    while low < high:
        middle = (low + high) // 2
        if len(cut_to_budget(widths, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return cut_to_budget(widths, high)


def cheapest_cut(widths: Sequence[tuple[int, int]], count: int, room: float, tokens_per_chunk: int) -> list[range]:
    """Cut rows into at most `count` chunks so that padding and the number of chunks cost least.

    Fewer chunks have more padding, because rows of different lengths share one.

    Args:
        widths: as in `cut_to_budget`.
        count: maximum number of chunks, at least 1.
        room: tokens that no chunk should exceed, padding included, unless `count` chunks cannot do that.
        tokens_per_chunk: what a chunk costs besides its tokens, in tokens.

    Example:
        >>> rows = [(2, 8), (2, 8), (2, 2), (2, 2)]
        >>> cheapest_cut(rows, count=4, room=40, tokens_per_chunk=5)  # 20 + 8 tokens and 2 x 5, rather than 40 and 5
        [range(0, 2), range(2, 4)]
        >>> cheapest_cut(rows, count=4, room=40, tokens_per_chunk=50)
        [range(0, 4)]
    """
    number, candidates = min(count, len(cut_to_budget(widths, room))), [cut_into(widths, count)]
    # Doubling bounds the work for steps of many micro-batches.
    while 0 < number < count:
        candidates.append(cut_into(widths, number))
        number *= 2

    def cost(chunks: list[range]) -> int:
        return sum(tokens_per_chunk + _padded_tokens(widths[chunk.start : chunk.stop]) for chunk in chunks)

    return min(candidates, key=cost)


def _padded_tokens(widths: Sequence[tuple[int, int]]) -> int:
    return len(widths) * (max(left for left, _ in widths) + max(right for _, right in widths))


def concatenate(batches: Sequence[Mapping[str, Any]]) -> Batch:
    """Concatenate micro-batches of one generation, which have the same widths."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(values) if values[0].ndim else values[0]
        return [item for value in values for item in value] if isinstance(values[0], list) else values[0]

    return {key: join([batch[key] for batch in batches]) for key in batches[0]}


def select_rows(batch: Mapping[str, Any], rows: Tensor) -> Batch:
    """Select rows of every per-row column; scalars stay as they are.

    Args:
        batch: columns of B rows, 0-dim tensors, or None.
        rows: (R,) row numbers; may be empty or repeat a row.

    Returns:
        The rows, their images as lists with one entry per row.
    """

    def take(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[rows] if value.ndim else value
        return [value[row] for row in rows.tolist()] if isinstance(value, list) else value

    return {key: take(value) for key, value in images_by_row(batch).items()}


def rollout_rows(batch: Mapping[str, Any], rows: Tensor, count: int) -> Batch:
    """Select rollouts, cut them to the longest, and fill up to `count` rows.

    TRL gathers per-row statistics, so every rank must pass the same number of rows: the fillers are copies whose
    completion mask is zero. A rank without rows passes copies of one token, or of a prompt with its images.

    Args:
        batch: TRL's batch of B rows.
        rows: (R,) row numbers to select, R <= count.
        count: number of rows to return, the same on every rank, at least 1.

    Returns:
        The batch of `count` rows.
    """
    filler = rows.new_full((count - len(rows),), int(rows[0]) if len(rows) else 0)
    small = select_rows(batch, torch.cat([rows, filler]))
    small["completion_mask"] = small["completion_mask"].clone()
    small["completion_mask"][len(rows) :] = 0
    width = max(1, int(small["completion_mask"].sum(dim=1).max()))
    for key in _COMPLETION_KEYS:
        # Sequence-level ratios are (B, 1).
        if small.get(key) is not None and small[key].size(1) > 1:
            small[key] = small[key][:, :width]
    # Prompts are padded on the left: the last column is always a real token. Images need their places in the prompt.
    prompts, left = small["prompt_mask"], 1
    if len(rows) or has_images(small):
        left = int(prompts.sum(dim=1).max())
    for key in TOKEN_TYPES:
        if small.get(key) is not None:
            small[key] = small[key][:, prompts.size(1) - left : prompts.size(1) + width]
    small["prompt_ids"], small["prompt_mask"] = small["prompt_ids"][:, -left:], prompts[:, -left:]
    return joined_images(small)


def demonstration_rows(batch: Mapping[str, Any], rows: Tensor) -> Batch:
    """Prompt and demonstration of selected rows as one sequence each, padded on the right.

    Padding on the right keeps positions independent of the other rows in the forward pass: models with absolute
    positions would see padding on the left.

    Args:
        batch: `prompt_ids`, `prompt_mask` (B, P), left-padded; `demonstration_ids`, `demonstration_mask` (B, T),
            right-padded, the mask 1 on trained tokens; and the columns of images.
        rows: (R,) row numbers, at least one.

    Returns:
        `input_ids`, `attention_mask`, `labels` (R, L) for a causal LM; labels are -100 where nothing is learned. And
        the columns of images, as in `select_rows`.
    """
    sequences, labels = [], []
    for row in rows.tolist():
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        mask = batch["demonstration_mask"][row]
        # Tokens after the last trained one, padding included, contribute to no loss.
        length = int((mask * torch.arange(1, len(mask) + 1, device=mask.device)).max())
        ids, trained = batch["demonstration_ids"][row][:length], mask[:length].bool()
        sequences.append(torch.cat([prompt, ids]))
        labels.append(torch.cat([torch.full_like(prompt, -100), ids.masked_fill(~trained, -100)]))
    attention = [torch.ones_like(sequence) for sequence in sequences]
    images = select_rows({name: batch[name] for name in IMAGE_COLUMNS if name in batch}, rows)
    for name in TOKEN_TYPES:
        if name in images:
            # Of the prompts; what follows has no images.
            types = [
                column[: mask.size(0)][mask.bool()] for column, mask in zip(images[name], batch["prompt_mask"][rows])
            ]
            padded = pad_sequence([*types, sequences[0].new_zeros(max(map(len, sequences)))], batch_first=True)
            images[name] = padded[:-1]
    return images | {
        "input_ids": pad_sequence(sequences, batch_first=True),
        "attention_mask": pad_sequence(attention, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
    }
