"""Hinted rollouts: prompts that no rollout solved are generated again from a prefix of their demonstration."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from hpt_trl.common.overriding import overriding
from hpt_trl.config import HPTConfig
from hpt_trl.trainer.batches import RolloutBatch, RowIndex
from hpt_trl.trainer.checks import context_length
from hpt_trl.trainer.collector import Demonstrations
from hpt_trl.trainer.durable import DurableGRPOTrainer
from hpt_trl.trainer.forwards import of_all_ranks
from hpt_trl.trainer.hints import Hint, HintFractions, choose_hints, own_share, replace_rollouts, rollout_columns
from hpt_trl.trainer.trl_hooks import separate_logs


class HintingGRPOTrainer(DurableGRPOTrainer):
    """
    [`~hpt_trl.trainer.durable.DurableGRPOTrainer`] that can generate rollouts which continue a given prefix.

    The prefix is part of the completion, so that reward functions judge it together with the continuation, and is
    masked as TRL masks what tools wrote: it is context, and has no gradient.

    Source: arXiv 2601.18779 (POPE), 2506.17211 (BREAD); arXiv 2512.17636 (TRAPO) and 2507.01679 (Prefix-RFT) train on
    the prefix too.
    """

    args: HPTConfig
    _prefixes: Sequence[list[int]] = ()  # of the rows that are being generated

    def _generate(self, *args, **kwargs):
        prompt_ids, completion_ids, mask, *others = super()._generate(*args, **kwargs)
        if self._prefixes:
            pairs = zip(self._prefixes, completion_ids, strict=True)
            mask = [[0] * len(prefix) + [1] * (len(ids) - len(prefix)) for prefix, ids in pairs]
        return prompt_ids, completion_ids, mask, *others

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        if not self._prefixes:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        begun = [[*ids, *prefix] for ids, prefix in zip(prompt_ids, self._prefixes, strict=True)]
        completion_ids, logps = super()._generate_single_turn(begun, *args, **kwargs)
        limit = self.max_completion_length
        completion_ids = [[*prefix, *ids][:limit] for prefix, ids in zip(self._prefixes, completion_ids)]
        if logps is not None:
            # TRL reads None as a log-probability that the engine could not tell, and corrects nothing there.
            logps = [[*[None] * len(prefix), *row][:limit] for prefix, row in zip(self._prefixes, logps)]
        return completion_ids, logps

    def _hinted_rollouts(self, hints: Sequence[Hint], rows: RowIndex) -> dict[str, Any]:
        """Generate and score rollouts from prefixes, `num_generations` per hint. Every process must call it.

        Returns:
            Columns of the rollouts of all hints in order, and of fillers after them, on every process.
        """
        own = own_share(hints, rows)
        prefixes = [hint.prefix for hint in own]
        limit = self.max_completion_length
        longest = limit if limit is None else limit - min(map(len, prefixes))
        with (
            separate_logs(self),
            overriding(self, _prefixes=prefixes),
            overriding(self.generation_config, max_new_tokens=longest),
        ):
            batch = super()._generate_and_score_completions([dict(hint.example) for hint in own])
        return of_all_ranks(rollout_columns(cast(RolloutBatch, batch)))


def hint_unsolved(
    trainer: Any,
    fractions: HintFractions,
    inputs: Sequence[Mapping[str, Any]],
    batch: RolloutBatch,
    demonstrations: Demonstrations,
    solve_rate_P: Tensor,
) -> Tensor | None:
    """Replace the rollouts of unsolved prompts by hinted ones, with `hint_fraction`. Every process must call it.

    Args:
        trainer: an HPTTrainer.
        fractions: how much of its demonstration each prompt is given; adapted to the result.
        inputs: B data rows.
        batch: the batch of B rows, changed in place.
        demonstrations: of this process's groups.
        solve_rate_P: (P,) of all prompts.

    Returns:
        (B,) bool, the rows that were replaced; None if there is no prompt to hint on any process.
    """
    if not trainer.args.hint_fraction:
        return None
    rows = trainer._rows
    context = context_length(trainer.model.config.get_text_config()) or math.inf
    limit = trainer.max_completion_length or math.inf
    lengths = batch["prompt_mask"].sum(dim=1).tolist()
    room = {row: min(limit, context - lengths[row]) - 1 for row in demonstrations.tokens}
    hints = choose_hints(inputs, demonstrations, solve_rate_P, fractions, rows, room)
    rates: list[float] = []
    is_hinted_B = None
    if hints:
        hinted = trainer._hinted_rollouts(hints, rows)
        is_hinted_B = replace_rollouts(batch, hinted, hints, rows, trainer._tokenizer.pad_token_id)
        rates = trainer._groups(rows.group_size).solve_rates()[: len(hints)].tolist()
    for hint, rate in zip(hints, rates, strict=True):
        fractions.note(hint.prompt_id, rate)
    trainer._step_log.log_hints(trainer._metrics["train"], rates, len(solve_rate_P))
    return is_hinted_B
