"""From the micro-batches TRL cut to the forwards each rank makes: rows with signal, spread by tokens.

A micro-batch becomes `{"rollouts": [...], "demonstrations": [...], "generated_rows": int}`, two lists of forwards.
Ranks make the same number of each, in the same order; a rank with nothing to do forwards one masked row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather, pad_across_processes
from torch import Tensor

from hpt_trl.trainer.row_packing import (
    Batch,
    concatenate,
    cut_into,
    cut_to_budget,
    deal,
    demonstration_rows,
    rollout_rows,
    select_rows,
)
from hpt_trl.trainer.trl_hooks import passed_share

_SEQUENCES = ("input_ids", "attention_mask", "labels")
# Some of TRL's losses read padding too: its ratios are 1 there.
_PADDING = {"labels": -100, "importance_sampling_ratio": 1, "tool_mask": 1}
_WEIGHTS = ("demonstration_weight", "off_policy_weight", "demonstration_advantage")


def spread(batches: Sequence[Batch], signals: Sequence[Tensor], loss_type: str, budget: int | None) -> list[Batch]:
    """Spread rows over the forwards of all ranks and micro-batches of one optimizer step.

    Args:
        batches: this rank's micro-batches, as TRL cut them.
        signals: (B,) bool of each micro-batch, which rollouts to compute.
        loss_type: TRL's option of that name.
        budget: tokens of one forward, padding included; None: one forward of each kind a micro-batch.

    Returns:
        As many micro-batches, of forwards.
    """
    whole = concatenate(batches)
    rollouts = _everywhere(select_rows(_rollout_columns(whole), torch.cat(list(signals)).nonzero().flatten()))
    demonstrations = _everywhere(_demonstration_table(whole))
    rollout_forwards, loads = _deal_rollouts(rollouts, len(batches), budget)
    for forward in rollout_forwards:
        forward["share"] = passed_share(loss_type, batches[0], forward)
    demonstration_forwards = _deal_demonstrations(demonstrations, loads, len(batches), budget)
    # From both ends, so that few micro-batches are left with nothing.
    return [
        _micro_batch(
            rollout_forwards[index :: len(batches)], demonstration_forwards[-1 - index :: -len(batches)], batch
        )
        for index, batch in enumerate(batches)
    ]


def stay(batch: Batch, signal: Tensor, loss_type: str) -> Batch:
    """Forwards of one micro-batch whose rows may neither leave it nor be computed apart.

    Args:
        batch: this rank's micro-batch.
        signal: (B,) bool, which rollouts to compute.
        loss_type: TRL's option of that name.
    """
    rows, table = signal.nonzero().flatten(), _demonstration_table(batch)
    counts = torch.tensor([[len(rows), len(table["labels"])]], device=signal.device)
    # Ranks must make the same forwards in the same order: decide from the largest counts, not from our own.
    most_rows, most_demonstrations = gather(counts).amax(dim=0).tolist()
    columns = _rollout_columns(batch)
    rollouts = [columns if signal.all() else rollout_rows(columns, rows, most_rows)] if most_rows else []
    for forward in rollouts:
        forward["share"] = passed_share(loss_type, batch, forward)
    own = range(len(table["labels"]))
    return _micro_batch(rollouts, [_demonstration_forward(table, own)] if most_demonstrations else [], batch)


def _micro_batch(rollouts: list[Batch], demonstrations: list[Batch], generated: Batch) -> Batch:
    if not rollouts and not demonstrations:
        # With nothing to learn anywhere, an empty demonstration is the cheapest zero with a gradient.
        demonstrations = [_demonstration_forward(_demonstration_table(generated), range(0))]
    return {
        "rollouts": rollouts,
        "demonstrations": demonstrations,
        "generated_rows": generated["advantages"].size(0),
    }


def _rollout_columns(batch: Batch) -> Batch:
    return {key: value for key, value in batch.items() if "demonstration" not in key and key != "off_policy_weight"}


def _demonstration_table(batch: Batch) -> Batch:
    """The demonstrations that weigh anything: sequences, weights, and the step's count of tokens."""
    device = batch["advantages"].device
    rows = torch.empty(0, dtype=torch.long, device=device)
    if "demonstration_ids" in batch:
        rows = ((batch["demonstration_weight"] > 0) | (batch["off_policy_weight"] > 0)).nonzero().flatten()
    nothing = torch.empty(0, 2, dtype=torch.long, device=device)
    table: Batch = dict.fromkeys(_SEQUENCES, nothing)
    if len(rows):
        table = demonstration_rows(batch, rows)
    table |= {name: batch[name][rows] if len(rows) else nothing[:, 0].float() for name in _WEIGHTS}
    return table | {"demonstration_tokens": batch.get("demonstration_tokens", torch.zeros((), device=device))}


def _everywhere(table: Batch) -> Batch:
    """The rows of all ranks, rank after rank."""
    if PartialState().num_processes == 1:
        return table
    columns = {key: value for key, value in table.items() if isinstance(value, Tensor) and value.ndim}
    count = len(next(iter(columns.values())))
    device = next(iter(columns.values())).device
    counts = gather(torch.tensor([count], device=device)).tolist()
    if not any(counts):
        # gloo hangs on tensors without elements.
        return table
    is_row = torch.arange(max(counts), device=device) < torch.tensor(counts, device=device).unsqueeze(1)
    joined = dict(table)
    for key in sorted(columns):
        value = columns[key]
        if value.ndim > 1:
            value = pad_across_processes(
                value, dim=1, pad_index=_PADDING.get(key, 0), pad_first=key.startswith("prompt")
            )
        joined[key] = gather(pad_across_processes(value))[is_row.flatten()]
    return joined


def _cut(widths: Sequence[tuple[int, int]], count: int, budget: int | None) -> list[range]:
    return cut_into(widths, count if budget is None else len(cut_to_budget(widths, budget)))


def _deal_rollouts(table: Batch, micro_batches: int, budget: int | None) -> tuple[list[Batch], list[int]]:
    """This rank's forwards of rollouts, and the tokens each rank has then."""
    state = PartialState()
    widths_B_2 = torch.stack(
        [table["prompt_mask"].sum(dim=1), table["completion_mask"].sum(dim=1).clamp(min=1)], dim=1
    ).cpu()
    lengths = widths_B_2.sum(dim=1).tolist()
    # TRL wants as many rows from each rank.
    most = math.ceil(len(lengths) / state.num_processes)
    dealt = deal(lengths, [0] * state.num_processes, most)
    longest = widths_B_2.new_zeros(most, 2)
    for rows in dealt:
        longest[: len(rows)] = longest[: len(rows)].maximum(widths_B_2[rows])
    own = torch.tensor(dealt[state.process_index], dtype=torch.long, device=table["prompt_mask"].device)
    runs = _cut([(left, right) for left, right in longest.tolist()], micro_batches, budget)
    forwards = [rollout_rows(table, own[run.start : run.stop], len(run)) for run in runs]
    return forwards, [sum(lengths[row] for row in rows) for rows in dealt]


def _deal_demonstrations(table: Batch, loads: list[int], micro_batches: int, budget: int | None) -> list[Batch]:
    """This rank's forwards of demonstrations, as many as the rank with the most of them makes."""
    lengths = table["attention_mask"].sum(dim=1).tolist()
    dealt = deal(lengths, loads)
    runs = [_cut([(0, lengths[row]) for row in rows], micro_batches, budget) for rows in dealt]
    rank = PartialState().process_index
    own = runs[rank] + [range(0)] * (max(map(len, runs)) - len(runs[rank]))
    return [_demonstration_forward(table, dealt[rank][run.start : run.stop]) for run in own]


def _demonstration_forward(table: Mapping[str, Any], rows: Sequence[int]) -> Batch:
    """Some demonstrations, cut to the longest of them; without rows two tokens with nothing to train on."""
    forward = select_rows(table, torch.tensor(list(rows), dtype=torch.long, device=table["labels"].device))
    if not rows:
        zeros = forward["labels"].new_zeros(1, 2)
        forward |= {"input_ids": zeros, "attention_mask": zeros + 1, "labels": zeros - 100}
        return forward | {name: zeros[:, 0].float() for name in _WEIGHTS}
    width = int(forward["attention_mask"].sum(dim=1).max())
    return forward | {name: forward[name][:, :width] for name in _SEQUENCES}
