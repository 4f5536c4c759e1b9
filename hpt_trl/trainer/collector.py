"""From the data rows of one generation to demonstration columns of its batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate.utils import gather
from torch import Tensor
from trl.trainer.utils import pad

from hpt_trl.algorithm.group_decision import Decision
from hpt_trl.common.logs import get_logger
from hpt_trl.trainer.batches import GatedBatch, RolloutBatch, RowIndex
from hpt_trl.trainer.demonstration_forms import chosen_candidate, is_missing
from hpt_trl.trainer.demonstrations import (
    DemonstrationTokenizer,
    DemonstrationTokens,
    prompt_identifier,
    truncated,
)
from hpt_trl.trainer.image_columns import check_images

logger = get_logger(__name__)


@dataclass(frozen=True)
class Demonstrations:
    """The usable demonstrations of one generation.

    Args:
        tokens: this process's, by the row that begins their group.
        is_available_P: (P,) bool, the prompts of all processes that have one.
        counts: over all processes: "missing", "cut", "refused", and of these "malformed", which could not be read or
            rendered by the chat template, or of whose candidates none is right.
    """

    tokens: Mapping[int, DemonstrationTokens]
    is_available_P: Tensor
    counts: Mapping[str, int]

    def ids_of_rows(self, rows: int) -> list[list[int]]:
        """Token ids of the demonstration of each of this process's rows, empty where there is none."""
        return [self.tokens[row].ids if row in self.tokens else [] for row in range(rows)]

    def text_of(self, rows: RowIndex, tokenizer: Any, prompt: int) -> str | None:
        """The demonstration of a prompt of the first process; None if it has none or is another's prompt."""
        tokens = self.tokens.get(prompt * rows.group_size)
        return None if tokens is None else tokenizer.decode(tokens.ids, skip_special_tokens=True)


class DemonstrationCollector:
    """
    Tokenizes the demonstrations of a generation and attaches to the batch those that the gate chose.

    Args:
        tokenizer: turns a demonstration into token ids.
        limit: maximum length in tokens.
        context: maximum length in tokens with the prompt; None: no limit.
        overflow: what happens to a longer one, "cut" or "refuse".
        pad_id: token id of the padding.
    """

    def __init__(
        self, tokenizer: DemonstrationTokenizer, limit: int, context: int | None, overflow: str, pad_id: int
    ) -> None:
        self.tokenizer = tokenizer
        self.limit = limit
        self.context = context
        self.overflow = overflow
        self.pad_id = pad_id

    def collect(
        self, examples: Sequence[Mapping[str, Any]], batch: RolloutBatch, rows: RowIndex, enabled: bool = True
    ) -> Demonstrations:
        """Tokenize the demonstrations of this process's groups. Every process must call it.

        Args:
            examples: B data rows.
            batch: the batch of B rows, whose prompt ids the demonstrations continue.
            rows: where these rows are among those of all processes.
            enabled: False where the gate is off: none is looked at.
        """
        tokens: dict[int, DemonstrationTokens] = {}
        counts = dict.fromkeys(("missing", "cut", "refused", "malformed"), 0)
        for row in rows.first_rows(len(examples)) if enabled else []:
            if is_missing(examples[row].get("demonstration")):
                counts["missing"] += 1
                continue
            prompt_ids = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            images = batch["num_images"][row] if "num_images" in batch else None
            usable, is_malformed = self._tokenized(examples[row], prompt_ids.tolist(), images)
            counts["malformed"] += is_malformed
            if usable is None:
                counts["refused"] += 1
            else:
                counts["cut"] += usable.was_cut
                tokens[row] = usable
        device = batch["prompt_ids"].device
        totals = gather(torch.tensor([list(counts.values())], device=device)).sum(dim=0).tolist()
        has_one_B = torch.zeros(len(examples), dtype=torch.long, device=device)
        has_one_B[list(tokens)] = 1
        is_available_P = gather(has_one_B)[:: rows.group_size] > 0
        return Demonstrations(tokens, is_available_P, dict(zip(counts, totals)))

    def _tokenized(
        self, example: Mapping[str, Any], prompt_ids: list[int], images: int | None
    ) -> tuple[DemonstrationTokens | None, bool]:
        """Tokens of one demonstration, None if it is refused; and whether it is refused for more than its length."""
        # Where an environment owns the data there may be no prompt; TRL then starts from an empty one.
        prompt = example.get("prompt", [{"role": "user", "content": ""}])
        try:
            if images is not None:
                check_images(example, images)
            demonstration = chosen_candidate(example["demonstration"], example.get("solution"))
            tokens = self.tokenizer(prompt, demonstration, prompt_ids)
        # One bad row must not end a run of days: its prompt is trained on rollouts. What is raised depends on its type.
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            logger.warning(f"Refused the demonstration of prompt {prompt_identifier(example)}: {error}")
            return None, True
        within = truncated(tokens, self.room_behind(len(prompt_ids)))
        if within.was_cut and (self.overflow == "refuse" or not any(within.mask)):
            return None, False
        return within, False

    def room_behind(self, prompt_length: int) -> int:
        """Maximum number of tokens of a demonstration behind a prompt of so many tokens."""
        return self.limit if self.context is None else min(self.limit, max(0, self.context - prompt_length))

    def attach(
        self, batch: RolloutBatch, demonstrations: Demonstrations, decision: Decision, rows: RowIndex
    ) -> GatedBatch:
        """Attach the demonstrations that the gate chose to the first rows of their groups. Every process must call it.

        Args:
            batch: B rows; the columns are added to it in place. TRL will shuffle them with its own.
            demonstrations: from `collect`.
            decision: weights and advantages.
            rows: as in `collect`.

        Returns:
            The same batch.
        """
        device = batch["prompt_ids"].device
        group_B = rows.group_of_row(len(batch["prompt_ids"]), device)
        weights = decision.weights
        is_wanted_B = ((weights.demonstration_P > 0) | (weights.off_policy_P > 0))[group_B].tolist()
        nothing = DemonstrationTokens([], [])
        chosen = {row: tokens for row, tokens in demonstrations.tokens.items() if is_wanted_B[row]}
        tokens_B = [chosen.get(row, nothing) for row in range(len(is_wanted_B))]
        is_attached_B = torch.tensor([row in chosen for row in range(len(is_wanted_B))], device=device)
        # `pad` cannot make a column of nothing: at least one column, all padding.
        ids = [torch.tensor(tokens.ids or [self.pad_id]) for tokens in tokens_B]
        columns: GatedBatch = {
            "demonstration_ids": pad(ids, self.pad_id).to(device),
            "demonstration_mask": pad([torch.tensor(tokens.mask or [0]) for tokens in tokens_B], 0).to(device),
            "demonstration_weight": weights.demonstration_P[group_B] * is_attached_B,
            "off_policy_weight": weights.off_policy_P[group_B] * is_attached_B,
            "demonstration_advantage": decision.demonstration_advantage_P[group_B],
        }
        columns["demonstration_tokens"] = gather(columns["demonstration_mask"].sum().float()).sum()
        batch.update(columns)
        return cast(GatedBatch, batch)
