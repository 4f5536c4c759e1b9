"""From the micro-batches that TRL cut to the forward passes that each rank makes: rows with signal, balanced by tokens.

Ranks make the same number of passes of each kind, in the same order; a rank with nothing to compute passes one masked
row.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather, pad_across_processes
from torch import Tensor

from hpt_trl.trainer.batches import (
    DEMONSTRATION_COLUMNS,
    WEIGHT_COLUMNS,
    DemonstrationForward,
    ForwardPasses,
    RolloutBatch,
    RolloutForward,
    is_gated,
)
from hpt_trl.trainer.image_columns import TOKEN_TYPES, has_images, joined_images
from hpt_trl.trainer.row_packing import (
    Batch,
    assign_rows,
    cheapest_cut,
    concatenate,
    cut_into,
    cut_to_budget,
    demonstration_rows,
    rollout_rows,
    select_rows,
)
from hpt_trl.trainer.trl_hooks import gradients_kept_local, loss_scale_of_subset

_SEQUENCES = ("input_ids", "attention_mask", "labels")
# Some of TRL's losses read padding too: its ratios are 1 there.
_PADDING = {"labels": -100, "importance_sampling_ratio": 1, "tool_mask": 1}

# What a forward and backward pass costs besides its tokens, in tokens: 50 to 60 on a CPU, for models of 1M and 31M
# parameters (notebooks/guides/performance.md). On an accelerator the host starts thousands of kernels, which takes as
# long as a thousand tokens of a model of 1.5B parameters; that is an estimate.
_TOKENS_PER_PASS = {"cpu": 60}
_TOKENS_PER_PASS_OF_ACCELERATORS = 1000

Cut = Callable[[Sequence[tuple[int, int]]], list[range]]
"""Cuts rows with these widths into forward passes: see `cut_to_budget`."""


def rebalance_rows(
    batches: Sequence[RolloutBatch], signals: Sequence[Tensor], loss_type: str, budget: int | None
) -> list[ForwardPasses]:
    """Distribute rows over the forward passes of all ranks and micro-batches of one optimizer step.

    Args:
        batches: this rank's micro-batches, as TRL cut them.
        signals: (B,) bool for each micro-batch, the rollouts to compute.
        loss_type: TRL's option of that name.
        budget: maximum tokens per forward pass, padding included; None: at most one pass of each kind per micro-batch,
            and fewer where that costs less and none is larger than a micro-batch of TRL.

    Returns:
        As many micro-batches, of forward passes. Without DDP, FSDP and DeepSpeed, only the first of them must have one.
    """
    step = cast(RolloutBatch, concatenate(batches))
    has_signal = torch.cat(list(signals)).nonzero().flatten()
    rollouts = _of_all_ranks(select_rows(_rollout_columns(step), has_signal))
    demonstrations = _of_all_ranks(_demonstration_table(step))
    room, device = _micro_batch_tokens(batches[0]), batches[0]["advantages"].device.type
    cut = partial(_cut, count=len(batches), budget=budget, room=room, device=device)
    rollout_passes, rank_tokens = _assign_rollouts(rollouts, cut)
    for rollout_pass in rollout_passes:
        rollout_pass["share"] = loss_scale_of_subset(loss_type, batches[0], rollout_pass)
    # Both lists begin with their longest rows: in opposite order, long rollouts meet short demonstrations.
    demonstration_passes = _assign_demonstrations(demonstrations, rank_tokens, cut)[::-1]
    count = len(batches)
    # The first micro-batch has a pass, so that the parameters have a gradient. DDP, FSDP and DeepSpeed expect one from
    # every micro-batch: they reduce gradients after the last.
    may_be_empty = AcceleratorState().distributed_type == DistributedType.NO
    return [
        _micro_batch(
            rollout_passes[index::count], demonstration_passes[index::count], batch, may_be_empty and index > 0
        )
        for index, batch in enumerate(batches)
    ]


def regroup(
    batches: Sequence[RolloutBatch],
    signals: Sequence[Tensor],
    loss_type: str,
    *,
    micro_batches_per_step: int,
    may_move: bool,
    budget: int | None,
) -> list[ForwardPasses]:
    """Regroup the micro-batches of one generation into forward passes.

    Args:
        batches: this rank's micro-batches, as TRL cut them.
        signals: (B,) bool for each micro-batch, the rollouts to compute.
        loss_type: TRL's option of that name.
        micro_batches_per_step: TRL's `gradient_accumulation_steps`.
        may_move: whether rows may be computed in another micro-batch than TRL's.
        budget: as in `rebalance_rows`.
    """
    if not may_move:
        return [keep_micro_batch(batch, signal, loss_type) for batch, signal in zip(batches, signals)]
    # Rows stay in their optimizer step, whose boundaries are multiples of this.
    size = math.gcd(len(batches), micro_batches_per_step)
    steps = [slice(start, start + size) for start in range(0, len(batches), size)]
    return [passes for step in steps for passes in rebalance_rows(batches[step], signals[step], loss_type, budget)]


def keep_micro_batch(batch: RolloutBatch, signal: Tensor, loss_type: str) -> ForwardPasses:
    """Forward passes of one micro-batch whose rows may neither leave it nor be computed apart from each other.

    Args:
        batch: this rank's micro-batch.
        signal: (B,) bool, the rollouts to compute.
        loss_type: TRL's option of that name.
    """
    rows, table = signal.nonzero().flatten(), _demonstration_table(batch)
    trained = int((table["labels"] != -100).any(dim=1).sum())
    counts = torch.tensor([[len(rows), trained]], device=signal.device)
    # Ranks must make the same passes in the same order: decide from the largest counts, not from this rank's.
    most_rows, most_demonstrations = gather(counts).amax(dim=0).tolist()
    columns = _rollout_columns(batch)
    rollouts = [columns if signal.all() else rollout_rows(columns, rows, most_rows)] if most_rows else []
    for rollout_pass in rollouts:
        rollout_pass["share"] = loss_scale_of_subset(loss_type, batch, rollout_pass)
    demonstrations = [_demonstration_pass(table, range(len(table["labels"])))] if most_demonstrations else []
    return _micro_batch(cast(list[RolloutForward], rollouts), demonstrations, batch)


def backward_each(losses: Sequence[Callable[[], Tensor]], model: Any, accelerator: Accelerator) -> Tensor:
    """Run forward passes one by one and backpropagate all but the last, so that no two graphs are held at a time.

    Args:
        losses: compute the loss of one forward pass each.
        model: the wrapped policy.
        accelerator: of the trainer.

    Returns:
        () sum of the losses. The caller, which is transformers, backpropagates what is left in its graph. Without
        forward passes, a zero that no parameter has a gradient of.
    """
    if not losses:
        return torch.zeros((), device=accelerator.device, requires_grad=True)
    *others, last = losses
    total: Tensor | float = 0
    for compute in others:
        with gradients_kept_local(accelerator, model) as backward:
            loss = compute()
            backward(loss)
        total = total + loss.detach()
    return last() + total


def demonstration_pass(batch: RolloutBatch) -> DemonstrationForward:
    """All demonstrations of a batch in one forward pass, which is a masked row if there are none."""
    table = _demonstration_table(batch)
    return _demonstration_pass(table, range(len(table["labels"])))


def _micro_batch(
    rollouts: list[RolloutForward],
    demonstrations: list[DemonstrationForward],
    generated: RolloutBatch,
    may_be_empty: bool = False,
) -> ForwardPasses:
    if not rollouts and not demonstrations and not may_be_empty:
        # With nothing to learn on any rank, an empty demonstration is the cheapest zero with a gradient.
        demonstrations = [_empty_pass(generated)]
    return {
        "rollouts": rollouts,
        "demonstrations": demonstrations,
        "generated_rows": generated["advantages"].size(0),
    }


def _empty_pass(generated: RolloutBatch) -> DemonstrationForward:
    table = _demonstration_table(generated)
    return _demonstration_pass(table, range(len(table["labels"])) if has_images(generated) else range(0))


def _rollout_columns(batch: RolloutBatch) -> Batch:
    return {name: column for name, column in batch.items() if name not in DEMONSTRATION_COLUMNS}


def _demonstration_table(batch: RolloutBatch) -> Batch:
    """The demonstrations with a weight above 0: sequences, weights, and the number of tokens of the step.

    Where prompts have images but none has a demonstration, it is one prompt with its images, to train nothing on.
    """
    device = batch["advantages"].device
    no_tokens = torch.empty(0, 2, dtype=torch.long, device=device)
    table: Batch = dict.fromkeys(_SEQUENCES, no_tokens)
    table |= dict.fromkeys(WEIGHT_COLUMNS, no_tokens[:, 0].float())
    if not is_gated(batch):
        return table | {"demonstration_tokens": torch.zeros((), device=device)}
    rows = ((batch["demonstration_weight"] > 0) | (batch["off_policy_weight"] > 0)).nonzero().flatten()
    if has_images(batch) and not len(rows):
        rows = rows.new_zeros(1)
    if len(rows):
        columns = cast(Batch, batch)
        table = demonstration_rows(batch, rows) | {name: columns[name][rows] for name in WEIGHT_COLUMNS}
    if "sft_weight" in batch:
        table["sft_weight"] = batch["sft_weight"]
    return table | {"demonstration_tokens": batch["demonstration_tokens"]}


def _of_all_ranks(table: Batch) -> Batch:
    """The rows of all ranks, rank after rank."""
    if PartialState().num_processes == 1:
        return table
    columns = {name: column for name, column in table.items() if isinstance(column, Tensor) and column.ndim}
    count = len(next(iter(columns.values())))
    device = next(iter(columns.values())).device
    counts = gather(torch.tensor([count], device=device)).tolist()
    if not any(counts):
        # gloo hangs on tensors without elements.
        return table
    is_row = torch.arange(max(counts), device=device) < torch.tensor(counts, device=device).unsqueeze(1)
    joined = dict(table)
    for name in sorted(columns):
        column = columns[name]
        if column.ndim > 1:
            column = pad_across_processes(
                column, dim=1, pad_index=_PADDING.get(name, 0), pad_first=name.startswith("prompt")
            )
        joined[name] = gather(pad_across_processes(column))[is_row.flatten()]
    return joined


def _micro_batch_tokens(batch: RolloutBatch) -> int:
    """Tokens of a micro-batch as TRL cut it, padding included: of the rank with the fewest."""
    rows, prompt_width = batch["prompt_ids"].shape
    tokens = torch.tensor([rows * (prompt_width + batch["completion_ids"].size(1))], device=batch["prompt_ids"].device)
    return int(gather(tokens).min())


def _cut(widths: Sequence[tuple[int, int]], count: int, budget: int | None, room: int, device: str) -> list[range]:
    if budget is not None:
        return cut_into(widths, len(cut_to_budget(widths, budget)))
    return cheapest_cut(widths, count, room, _TOKENS_PER_PASS.get(device, _TOKENS_PER_PASS_OF_ACCELERATORS))


def _assign_rollouts(table: Batch, cut: Cut) -> tuple[list[RolloutForward], list[int]]:
    """This rank's forward passes of rollouts, and the tokens that each rank has then."""
    state = PartialState()
    widths_B_2 = torch.stack(
        [table["prompt_mask"].sum(dim=1), table["completion_mask"].sum(dim=1).clamp(min=1)], dim=1
    ).cpu()
    lengths = widths_B_2.sum(dim=1).tolist()
    # TRL needs the same number of rows on each rank.
    max_rows = math.ceil(len(lengths) / state.num_processes)
    assigned = assign_rows(lengths, [0] * state.num_processes, max_rows)
    longest = widths_B_2.new_zeros(max_rows, 2)
    for rows in assigned:
        longest[: len(rows)] = longest[: len(rows)].maximum(widths_B_2[rows])
    own = torch.tensor(assigned[state.process_index], dtype=torch.long, device=table["prompt_mask"].device)
    chunks = cut([(left, right) for left, right in longest.tolist()])
    passes = [rollout_rows(table, own[chunk.start : chunk.stop], len(chunk)) for chunk in chunks]
    return cast(list[RolloutForward], passes), [sum(lengths[row] for row in rows) for rows in assigned]


def _assign_demonstrations(table: Batch, rank_tokens: list[int], cut: Cut) -> list[DemonstrationForward]:
    """This rank's forward passes of demonstrations, as many as the rank with the most of them makes."""
    lengths = table["attention_mask"].sum(dim=1).tolist()
    assigned = assign_rows(lengths, rank_tokens)
    chunks = [cut([(0, lengths[row]) for row in rows]) for rows in assigned]
    rank = PartialState().process_index
    own = chunks[rank] + [range(0)] * (max(map(len, chunks)) - len(chunks[rank]))
    return [_demonstration_pass(table, assigned[rank][chunk.start : chunk.stop]) for chunk in own]


def _demonstration_pass(table: Mapping[str, Any], rows: Sequence[int]) -> DemonstrationForward:
    """Some demonstrations, cut to the longest of them; without rows two tokens with nothing to train on."""
    selected = select_rows(table, torch.tensor(list(rows), dtype=torch.long, device=table["labels"].device))
    if not rows:
        zeros = selected["labels"].new_zeros(1, 2)
        selected |= {"input_ids": zeros, "attention_mask": zeros + 1, "labels": zeros - 100}
        selected |= {name: zeros[:, 0].float() for name in WEIGHT_COLUMNS}
        return cast(DemonstrationForward, selected)
    width = int(selected["attention_mask"].sum(dim=1).max())
    sequences = [name for name in (*_SEQUENCES, *TOKEN_TYPES) if name in selected]
    return cast(DemonstrationForward, joined_images(selected | {name: selected[name][:, :width] for name in sequences}))
