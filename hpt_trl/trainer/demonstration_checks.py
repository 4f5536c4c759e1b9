"""Warnings before the first step: demonstrations that the verifier rejects, and demonstrations that are too long.

A sample of the training data is checked. Streams are not: reading them twice may mean downloading them twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset
from jinja2 import TemplateError
from trl import GRPOTrainer

from hpt_trl.common.logs import get_logger
from hpt_trl.trainer.demonstration_forms import chosen_candidate, is_missing, messages_of
from hpt_trl.verifier.grader import Verdict
from hpt_trl.verifier.verdicts import accuracy_reward, completion_text, judge

logger = get_logger(__name__)

Rows = Mapping[int, Mapping[str, Any]]
"""Data rows by index; the demonstration of each is a text or messages."""

_SAMPLE = 32
_SEARCHED = 1024
"""Rows in which the sample is searched, where few have a demonstration."""

_EXCERPT = 60  # characters
_CUT_SHARE = 0.5
"""Share of the sample; the report of the run names smaller shares."""


def warn_of_useless_demonstrations(trainer: Any) -> None:
    """Warn of wrong and of truncated demonstrations, on the main process. Only our own verifier is asked.

    Args:
        trainer: an HPTTrainer whose training begins.
    """
    trains_on_them = trainer.uses_demonstrations or trainer.args.sft_warmup_steps
    if not (trains_on_them and trainer.accelerator.is_main_process) or trainer.environment_factories is not None:
        return
    rows = sample(trainer.train_dataset)
    column = trainer._gate_column
    warnings = [
        wrong_demonstrations(rows) if column is not None and trainer.reward_funcs[column] is accuracy_reward else None,
        long_demonstrations(trainer, rows),
    ]
    for warning in filter(None, warnings):
        logger.warning(warning)


def sample(dataset: Any) -> Rows:
    """Up to 32 rows with a demonstration of a form that can be read, spread over the data; none of a stream."""
    if not isinstance(dataset, Dataset) or "demonstration" not in dataset.column_names:
        return {}
    indices = _spread(range(len(dataset)), _SEARCHED)
    demonstrations = dataset.select_columns("demonstration").select(indices)["demonstration"][:]
    present = [index for index, each in zip(indices, demonstrations) if not is_missing(each)]
    return dict(_readable(dataset, _spread(present, _SAMPLE)))


def _spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced."""
    return [items[len(items) * number // count] for number in range(count)] if len(items) > count else list(items)


def _readable(dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index in indices:
        row = dataset[index]
        try:
            demonstration = chosen_candidate(row["demonstration"], row.get("solution"))
            messages_of(row["prompt"], demonstration)
        # The collector reports those that it refuses, when their prompt is sampled.
        except (ValueError, TypeError, AttributeError, LookupError):
            continue
        yield index, row | {"demonstration": demonstration}


def wrong_demonstrations(rows: Rows) -> str | None:
    """A warning if the verifier judges demonstrations wrong for their own row."""
    texts = [completion_text(messages_of(row["prompt"], row["demonstration"])) for row in rows.values()]
    verdicts = judge(texts, [row.get("solution") for row in rows.values()])
    # Solutions that cannot be read are reported by `verdicts/unparseable_gold`.
    judged = [item for item in zip(rows, texts, verdicts) if item[2] is not Verdict.UNPARSEABLE_GOLD]
    wrong = [item for item in judged if item[2] is not Verdict.RIGHT]
    if not wrong:
        return None
    index, text, verdict = wrong[0]
    return (
        f"accuracy_reward does not accept {len(wrong)} of {len(judged)} sampled demonstrations "
        f"({len(wrong) / len(judged):.0%}) as the answer to their own row: training on them moves the policy towards "
        f"answers without a reward. For example, the demonstration of row {index} ends with {text[-_EXCERPT:]!r}, and "
        f"its solution is {str(rows[index].get('solution'))[:_EXCERPT]!r} (verdict: {verdict}). Correct or remove such "
        "demonstrations: `hpt-trl prepare` refuses them, and puts answers into a box by --solution_pattern."
    )


def long_demonstrations(trainer: Any, rows: Rows) -> str | None:
    """A warning if at least half of the demonstrations are longer than the limit.

    Args:
        trainer: an HPTTrainer.
        rows: data rows with a demonstration.
    """
    lengths, long = {}, []
    for index, row in rows.items():
        if row.get("image") is not None or row.get("images"):
            continue
        try:
            prompt_ids = GRPOTrainer._tokenize_prompts(trainer, [row["prompt"]])[0][0]
            tokens = trainer._collector.tokenizer(row["prompt"], row["demonstration"], prompt_ids)
        # What a chat template raises depends on the template. The collector reports it, or the run ends by it.
        except (ValueError, TypeError, AttributeError, LookupError, TemplateError):
            continue
        lengths[index] = len(tokens.ids)
        if len(tokens.ids) > trainer._collector.room_behind(len(prompt_ids)):
            long.append(index)
    if not long or len(long) < _CUT_SHARE * len(lengths):
        return None
    is_refused = trainer._collector.overflow == "refuse"
    effect = "refused, and never used" if is_refused else "cut, and teach neither the answer nor how to end"
    return (
        f"{len(long)} of {len(lengths)} sampled demonstrations ({len(long) / len(lengths):.0%}) are longer than the "
        f"limit of {trainer._collector.limit} tokens (max_demonstration_length, by default max_completion_length), or "
        f"than the model's context behind their prompt: they are {effect}. For example, the demonstration of row "
        f"{long[0]} has {lengths[long[0]]} tokens. Raise max_demonstration_length; the longest one of the sample has "
        f"{max(lengths.values())} tokens. Or use shorter demonstrations."
    )
