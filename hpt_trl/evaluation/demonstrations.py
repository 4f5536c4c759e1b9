"""Demonstrations sampled from a model: for each prompt without one, completions that the verifier accepts.

The seeds of a batch do not depend on what was sampled before it, and every batch is saved: a run that was killed and
restarted gives the same demonstrations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from hpt_trl.data.prompts import Prompt
from hpt_trl.evaluation.engines import Completion
from hpt_trl.evaluation.journal import Journal
from hpt_trl.evaluation.sampling import batch_seed
from hpt_trl.evaluation.scores import RIGHT, Answer
from hpt_trl.verifier.custom import Verifier

Complete = Callable[[Sequence[Prompt], int], list[Completion]]
"""Takes prompts and a seed; returns one completion per prompt."""

CHOICES: dict[str, Callable[[Answer], Any]] = {
    "first": lambda answer: answer.sample,
    "shortest": lambda answer: (answer.tokens, answer.sample),
    "most_likely": lambda answer: (-(answer.logp or 0.0), answer.sample),
}
"""Which of the accepted completions becomes the demonstration: the one that comes first in this order."""


@dataclass
class Demonstrations:
    """
    What was sampled.

    Args:
        texts: the demonstration of each row that got one, by row index.
        missing: number of rows that had none.
        samples: number of completions.
        accepted: number of completions that the verifier accepted and that were not cut.
        cut: number of completions that reached the maximum length.
    """

    texts: dict[int, str] = field(default_factory=dict)
    missing: int = 0
    samples: int = 0
    accepted: int = 0
    cut: int = 0

    def __str__(self) -> str:
        share = f" ({len(self.texts) / self.missing:.0%})" if self.missing else ""
        return (
            f"{len(self.texts)} of {self.missing} prompts without a demonstration got one{share}: {self.accepted} of "
            f"{self.samples} completions were accepted, {self.cut} were cut at the maximum length."
        )


def is_accepted(answer: Answer) -> bool:
    """Whether a completion may be a demonstration: right, and complete with its end."""
    return answer.verdict == RIGHT and not answer.cut


def sample_demonstrations(
    rows: Sequence[Mapping[str, Any]],
    complete: Complete,
    verifier: Verifier,
    folder: Path,
    settings: Mapping[str, Any],
    samples: int,
    choice: str,
    batch_size: int,
    seed: int,
) -> Demonstrations:
    """Sample demonstrations for the rows without one, in rounds of one completion per prompt.

    With the choice "first", a prompt takes part until a completion is accepted.

    Args:
        rows: rows with `prompt`, `demonstration` ("" if there is none) and `solution`.
        complete: samples completions; called only for batches that are not saved.
        verifier: judges the completions.
        folder: where the completions are saved, one file per round.
        settings: everything that the completions depend on; those saved with other settings are refused.
        samples: maximum number of completions per prompt.
        choice: a key of `CHOICES`.
        batch_size: number of completions that are sampled and saved together.
        seed: random seed.
    """
    missing = [index for index, row in enumerate(rows) if not row["demonstration"]]
    answers: dict[int, list[Answer]] = {index: [] for index in missing}
    for number in range(samples):
        open_rows = [index for index in missing if choice != "first" or not any(map(is_accepted, answers[index]))]
        batches = [
            [(index, number) for index in open_rows[start : start + batch_size]]
            for start in range(0, len(open_rows), batch_size)
        ]
        journal = Journal(folder, f"round{number + 1}", settings, batches)
        saved = sum(map(len, journal.finished))
        with tqdm(total=len(open_rows), initial=saved, desc=f"round {number + 1}/{samples}", unit="completion") as bar:
            for position in range(len(journal.finished), len(batches)):
                indices = [index for index, _ in batches[position]]
                completions = complete(
                    [rows[index]["prompt"] for index in indices], batch_seed(seed, journal.path.stem, position)
                )
                journal.append(_judge(rows, indices, number, completions, verifier))
                bar.update(len(indices))
        for answer in (answer for batch in journal.finished for answer in batch):
            answers[answer.problem].append(answer)
    return _choose(answers, choice)


def _judge(
    rows: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    number: int,
    completions: Sequence[Completion],
    verifier: Verifier,
) -> list[Answer]:
    batch = [rows[index] for index in indices]
    columns = {name: [row.get(name) for row in batch] for name in batch[0]}
    texts = [completion.text for completion in completions]
    verdicts = verifier([row["prompt"] for row in batch], texts, columns)
    return [
        Answer(index, number, completion.text, completion.tokens, completion.cut, str(verdict), completion.logp)
        for index, completion, verdict in zip(indices, completions, verdicts)
    ]


def _choose(answers: Mapping[int, Sequence[Answer]], choice: str) -> Demonstrations:
    """The chosen completion of each row, and the counts."""
    result = Demonstrations(missing=len(answers))
    for index, candidates in answers.items():
        accepted = [answer for answer in candidates if is_accepted(answer)]
        result.samples += len(candidates)
        result.accepted += len(accepted)
        result.cut += sum(answer.cut for answer in candidates)
        if accepted:
            result.texts[index] = min(accepted, key=CHOICES[choice]).text
    return result
