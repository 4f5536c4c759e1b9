"""The three shapes of a training batch, and where a row of this process is among all rows.

TRL's batch (`RolloutBatch`) becomes a `GatedBatch` when demonstrations are attached to it, and `ForwardPasses` when its
rows are regrouped. They are dicts because TRL's are, and because `torch.save` stores them in checkpoints that are
loaded with `weights_only=True`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, TypeGuard

import torch
from torch import Tensor
from trl.trainer.utils import pad

from hpt_trl.algorithm.group_decision import Decision, Groups


class RolloutBatch(TypedDict, total=False):
    """TRL's columns of B rollouts, as far as we use them; others of TRL's are passed through."""

    prompt_ids: Tensor  # (B, P), left-padded
    prompt_mask: Tensor
    completion_ids: Tensor  # (B, T), right-padded
    completion_mask: Tensor
    tool_mask: Tensor | None  # (B, T), 0 on what a tool wrote
    advantages: Tensor  # (B,)
    old_per_token_logps: Tensor | None  # (B, T)
    ref_per_token_logps: Tensor | None
    sampling_per_token_logps: Tensor  # (B, T) of the engine that sampled
    importance_sampling_ratio: Tensor  # (B, T) or (B, 1)
    rewards: Tensor  # (B,) success of the rollout, for algorithms that estimate their own advantages
    rollout_weight: Tensor  # (B,) the gate's weight, likewise
    num_images: list[int]  # (B,) images of each row, those that tools returned included
    has_rollouts: Tensor  # () bool; absent where TRL made the batch


class GatedBatch(RolloutBatch, total=False):
    """A batch with demonstrations attached to the first row of their groups; see `DEMONSTRATION_COLUMNS`."""

    demonstration_ids: Tensor  # (B, L), right-padded
    demonstration_mask: Tensor  # (B, L), 1 on trained tokens
    demonstration_weight: Tensor  # (B,)
    off_policy_weight: Tensor  # (B,)
    demonstration_advantage: Tensor  # (B,)
    demonstration_tokens: Tensor  # () trained tokens of the whole generation on all processes
    sft_weight: Tensor  # () in the warm-up, in the place of the option


class RolloutForward(RolloutBatch, total=False):
    """Rollouts of one forward pass."""

    share: Tensor | float  # factor that gives their loss the denominator of all generated rows


class DemonstrationForward(TypedDict):
    """Demonstrations of one forward pass, each as one sequence with its prompt."""

    input_ids: Tensor  # (R, L), right-padded
    attention_mask: Tensor
    labels: Tensor  # (R, L), -100 where nothing is trained
    demonstration_weight: Tensor  # (R,)
    off_policy_weight: Tensor
    demonstration_advantage: Tensor
    demonstration_tokens: Tensor  # ()
    sft_weight: NotRequired[Tensor]  # ()


class ForwardPasses(TypedDict):
    """One micro-batch as the forward passes that compute it. All processes make the same number of each kind."""

    rollouts: list[RolloutForward]
    demonstrations: list[DemonstrationForward]
    generated_rows: int


WEIGHT_COLUMNS = ("demonstration_weight", "off_policy_weight", "demonstration_advantage")
DEMONSTRATION_COLUMNS = (
    "demonstration_ids",
    "demonstration_mask",
    "demonstration_tokens",
    "sft_weight",
    *WEIGHT_COLUMNS,
)


def is_gated(batch: Mapping[str, Any]) -> TypeGuard[GatedBatch]:
    """Whether demonstrations are attached to a batch."""
    return "demonstration_ids" in batch


def has_rollouts(batch: RolloutBatch) -> bool:
    """Whether anything was generated for a batch."""
    return "has_rollouts" not in batch or bool(batch["has_rollouts"])


def is_forward_passes(batch: Mapping[str, Any]) -> TypeGuard[ForwardPasses]:
    """Whether a micro-batch was regrouped into forward passes."""
    return "generated_rows" in batch


def batch_of_prompts(prompt_ids: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> RolloutBatch:
    """A batch in TRL's form whose rows have a prompt, no completion and advantage 0.

    Args:
        prompt_ids: token ids of B prompts.
        pad_id: token id of the padding.
        device: of its tensors.
    """
    ids = [torch.tensor(row, dtype=torch.long) for row in prompt_ids]
    no_tokens = torch.zeros(len(ids), 1, dtype=torch.long, device=device)
    return {
        "prompt_ids": pad(ids, pad_id, padding_side="left").to(device),
        "prompt_mask": pad([torch.ones_like(row) for row in ids], 0, padding_side="left").to(device),
        "completion_ids": no_tokens + pad_id,
        "completion_mask": no_tokens,
        "advantages": torch.zeros(len(ids), device=device),
        "has_rollouts": torch.tensor(False),
    }


@dataclass(frozen=True)
class RowIndex:
    """Where the rows of one process are among the rows of all processes, which hold complete groups only together.

    Args:
        process: index of this process.
        processes: number of processes.
        group_size: rollouts per prompt.
        groups: number of prompts on all processes, where the last rows are padding; None: no row is.

    Example:
        >>> second = RowIndex(process=1, processes=2, group_size=4)
        >>> second.group_of_row(6).tolist(), second.first_rows(6)  # rows 6 to 11 of 12
        ([1, 1, 2, 2, 2, 2], [2])
    """

    process: int
    processes: int
    group_size: int
    groups: int | None = None

    def own_rows(self, values_B: Tensor) -> Tensor:
        """This process's part of a column of all rows."""
        rows = len(values_B) // self.processes
        return values_B[self.process * rows : (self.process + 1) * rows]

    def group_of_row(self, rows: int, device: torch.device | None = None) -> Tensor:
        """(B,) index, over all processes, of the prompt of each of this process's rows.

        Args:
            rows: B, the number of this process's rows.
            device: where the result belongs.
        """
        first = self.process * rows
        return torch.arange(first, first + rows, device=device) // self.group_size

    def first_rows(self, rows: int) -> list[int]:
        """This process's rows that begin a group: a group may span processes, and its first row is on one of them."""
        first = self.process * rows
        end = rows if self.groups is None else min(rows, self.groups * self.group_size - first)
        return [row for row in range(end) if (first + row) % self.group_size == 0]


def apply_decision(
    batch: RolloutBatch, decision: Decision, groups: Groups, rows: RowIndex, uses_trl_loss: bool
) -> None:
    """Write the advantages and the gate's weights of the rollouts into this process's batch.

    Args:
        batch: B rows, changed in place.
        decision: over all processes.
        groups: rewards of all processes.
        rows: where these rows are among those of all processes.
        uses_trl_loss: False adds what algorithms need that estimate advantages row by row.
    """
    weight_B = decision.weights.rollouts_P[rows.group_of_row(len(batch["advantages"]), batch["advantages"].device)]
    if decision.advantages_B is not None:
        batch["advantages"] = rows.own_rows(decision.advantages_B)
    batch["advantages"] = batch["advantages"] * weight_B
    if not uses_trl_loss:
        batch["rewards"] = rows.own_rows(groups.successes())
        batch["rollout_weight"] = weight_B
