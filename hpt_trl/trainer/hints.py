"""Which unsolved prompts are given a prefix of their demonstration, how long it is, and where its rollouts go."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate.utils import gather, gather_object
from torch import Tensor
from torch.nn import functional

from hpt_trl.algorithm.presets import Algorithm
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.batches import RolloutBatch, RowIndex
from hpt_trl.trainer.collector import Demonstrations
from hpt_trl.trainer.demonstrations import prompt_identifier
from hpt_trl.trainer.forwards import PADDING
from hpt_trl.trainer.row_packing import COMPLETION_COLUMNS, Batch

_SMOOTHING = 0.1
"""Weight of one prompt in the share that prompts without a history start with."""


@dataclass(frozen=True)
class Hint:
    """A prompt that is generated again from a prefix of its demonstration.

    Args:
        group: index of the prompt among those of all processes.
        prompt_id: identifies it across generations.
        example: its data row.
        prefix: token ids that follow those of the prompt.
    """

    group: int
    prompt_id: str
    example: Mapping[str, Any]
    prefix: list[int]


class HintFractions:
    """
    The share of its demonstration that each prompt is given.

    It is halved when at least half of the hinted rollouts solved the prompt, and moves halfway towards the complete
    demonstration when none did. A prompt without a history starts with a running mean over prompts.

    Args:
        initial: share that the first prompts start with, in [0, 1).

    Source: arXiv 2506.17211 (BREAD) searches for a prefix from which some rollouts succeed and some fail.
    """

    def __init__(self, initial: float) -> None:
        self.start = initial
        self.by_prompt: dict[str, float] = {}

    def of(self, prompt_id: str) -> float:
        """The share of a prompt."""
        return self.by_prompt.get(prompt_id, self.start)

    def note(self, prompt_id: str, solve_rate: float) -> None:
        """Adapt it to the solve rate of the hinted rollouts; NaN, where none could be scored, changes nothing."""
        before = self.of(prompt_id)
        after = before
        if solve_rate >= 0.5:
            after = before / 2
        elif solve_rate == 0:
            after = (1 + before) / 2
        self.by_prompt[prompt_id] = after
        self.start += _SMOOTHING * (after - self.start)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"start": self.start, "by_prompt": dict(self.by_prompt)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.start, self.by_prompt = state["start"], dict(state["by_prompt"])


def choose_hints(
    examples: Sequence[Mapping[str, Any]],
    demonstrations: Demonstrations,
    solve_rate_P: Tensor,
    fractions: HintFractions,
    rows: RowIndex,
    room_of_row: Mapping[int, float],
) -> list[Hint]:
    """The prompts that no rollout solved and that have a demonstration, the same list on every process.

    Args:
        examples: B data rows.
        demonstrations: of this process's groups.
        solve_rate_P: (P,) of all prompts.
        fractions: how much of its demonstration each prompt is given.
        rows: where these rows are among those of all processes.
        room_of_row: maximum length of a prefix in tokens, for the rows that have a demonstration.
    """
    group_of_row = rows.group_of_row(len(examples)).tolist()
    is_unsolved_P = (solve_rate_P == 0).tolist()
    own = []
    for row, tokens in demonstrations.tokens.items():
        if is_unsolved_P[group_of_row[row]]:
            prompt_id = prompt_identifier(examples[row])
            wanted = round(fractions.of(prompt_id) * len(tokens.ids))
            length = int(min(wanted, len(tokens.ids) - 1, room_of_row[row]))
            if length > 0:
                own.append(Hint(group_of_row[row], prompt_id, examples[row], tokens.ids[:length]))
    return gather_object(own)


def own_share(hints: Sequence[Hint], rows: RowIndex) -> list[Hint]:
    """The hint of each row that this process generates: an equal share, complete groups on all processes together.

    Args:
        hints: of all processes; the first is repeated where processes would not have the same number of rows.
        rows: number of processes and rollouts per prompt.
    """
    unit = rows.group_size // math.gcd(rows.group_size, rows.processes)
    count = math.ceil(math.ceil(len(hints) * rows.group_size / rows.processes) / unit) * unit
    groups = count * rows.processes // rows.group_size
    repeated = [*hints, *[hints[0]] * (groups - len(hints))]
    of_rows = [hint for hint in repeated for _ in range(rows.group_size)]
    return of_rows[rows.process * count : (rows.process + 1) * count]


def rollout_columns(batch: RolloutBatch) -> Batch:
    """The columns that hold a rollout and what is trained on it."""
    names = (*COMPLETION_COLUMNS, "advantages")
    return {name: column for name, column in cast(Batch, batch).items() if name in names and column is not None}


def replace_rollouts(
    batch: RolloutBatch, hinted: Mapping[str, Any], hints: Sequence[Hint], rows: RowIndex, pad_id: int
) -> Tensor:
    """Put hinted rollouts in the place of those of their prompts. Every process must call it.

    Args:
        batch: B rows, changed in place. Prefixes are completion tokens that `tool_mask` excludes from the loss.
        hinted: columns of the rollouts of all hints in order.
        hints: of all processes.
        rows: where these rows are among those of all processes.
        pad_id: token id of the padding.

    Returns:
        (B,) bool, the rows that were replaced.
    """
    device = batch["advantages"].device
    count = len(batch["advantages"])
    hint_of_group = {hint.group: index for index, hint in enumerate(hints)}
    hint_B = torch.tensor([hint_of_group.get(group, -1) for group in rows.group_of_row(count).tolist()], device=device)
    first = rows.process * count
    source_B = hint_B * rows.group_size + torch.arange(first, first + count, device=device) % rows.group_size
    is_hinted_B = hint_B >= 0
    columns = cast(Batch, batch)
    if columns.get("tool_mask") is None:
        columns["tool_mask"] = torch.ones_like(batch["completion_mask"])
    for name, column in hinted.items():
        old, new = columns[name], column[source_B[is_hinted_B]].to(columns[name].dtype)
        if column.ndim > 1:
            padding = {**PADDING, "completion_ids": pad_id}.get(name, 0)
            width = max(old.size(1), new.size(1))
            old, new = (functional.pad(part, (0, width - part.size(1)), value=padding) for part in (old, new))
        columns[name] = old.clone()
        columns[name][is_hinted_B] = new
    columns["num_items_in_batch"] = gather((batch["completion_mask"] * columns["tool_mask"]).sum()).sum()
    return is_hinted_B


def check_hints(args: HPTConfig, algorithm: Algorithm, **given: Any) -> None:
    """Reject what hinted rollouts do not work with.

    Args:
        args: of the run.
        algorithm: the preset that `args` names, or the user's own.
        given: arguments of the trainer that must not be set, by name.
    """
    if not args.hint_fraction:
        return
    is_plain = algorithm.trl_rollouts and not algorithm.joint_group and algorithm.prescribed_gate is None
    if not is_plain or not algorithm.rollouts:
        raise ValueError(
            f"hint_fraction={args.hint_fraction} needs the gate and the policy gradient of algorithm='hpt': this "
            "algorithm has others. Set it to 0, or use algorithm='hpt'."
        )
    offending = sorted(name for name, value in given.items() if value)
    if offending:
        raise ValueError(
            f"hint_fraction={args.hint_fraction} continues demonstrations as plain text, which does not work with "
            f"{', '.join(offending)}. Set it to 0, or remove {'it' if len(offending) == 1 else 'them'}."
        )
