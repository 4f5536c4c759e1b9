"""Converts any known dataset to the columns `prompt`, `demonstration`, `solution`, and reports the refused rows.

`readers` reads the rows, `columns` recognizes datasets by their columns, `prompts` formats the prompt,
`decontamination` compares it with the benchmarks, the verifier checks the demonstration, and `refusal_report` counts.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from typing import Any

from hpt_trl.common.formats import BOXED, END_OF_THINK, THINK
from hpt_trl.data.columns import Converter, Example, converter
from hpt_trl.data.decontamination import Overlap
from hpt_trl.data.prompts import Prompt, PromptStyle, question_text
from hpt_trl.data.refusal_report import Reason, RefusedError, Report
from hpt_trl.verifier.custom import DEFAULT_VERIFIER, Verifier, named_verifier
from hpt_trl.verifier.grader import Verdict
from hpt_trl.verifier.verdicts import final_answer

BATCH_ROWS = 256
"""Rows graded together. Large enough to keep the verifier's workers busy, small enough to bound memory."""

_ROWS_SEARCHED_FOR_COLUMNS = 100


@dataclass
class _Candidate:
    """A row that is being prepared, and the verifier's decision on it."""

    row_number: int
    prompt: Prompt
    example: Example
    demonstration: str = ""
    refusal: RefusedError | None = None
    is_decided: bool = False


class Preparation:
    """
    Prepares rows in batches, and counts the kept and refused rows in `report`.

    Args:
        convert: converts a row, see `columns.converter`.
        style: how prompts are formatted.
        overlap: finds the benchmark problems that a prompt overlaps. None skips the comparison.
        missing_demonstration: "keep" rows without a demonstration, which are trained with RL only, or "refuse" them.
        report: receives the counts; by default a new one.
        verifier: judges the demonstrations, see `verifier.custom.named_verifier`; by default `accuracy_reward`.
    """

    def __init__(
        self,
        convert: Converter,
        style: PromptStyle | None = None,
        overlap: Overlap | None = None,
        missing_demonstration: str = "keep",
        report: Report | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        if missing_demonstration not in ("keep", "refuse"):
            raise ValueError(f"missing_demonstration must be 'keep' or 'refuse', got {missing_demonstration!r}.")
        self.convert = convert
        self.style = style or PromptStyle()
        self.overlap = overlap
        self.keeps_missing = missing_demonstration == "keep"
        self.report = report or Report()
        self.verifier = verifier or named_verifier(DEFAULT_VERIFIER)
        self._kept_prompts: set[bytes] = set()
        self.prompt_type: type | None = None  # of the kept rows: str or list

    def run(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the kept rows, in order, with `prompt`, `demonstration` ("" if there is none) and `solution`.

        Keeps one batch in memory, and a short hash of every kept prompt to recognize duplicates.
        """
        rows = iter(rows)
        while batch := list(islice(rows, BATCH_ROWS)):
            candidates = [candidate for row in batch if (candidate := self._convert(row)) is not None]
            _verify(candidates, self.verifier)
            for candidate in candidates:
                if self._is_kept(candidate):
                    yield self._finish(candidate)

    def _convert(self, row: Mapping[str, Any]) -> _Candidate | None:
        self.report.read += 1
        number = self.report.read
        try:
            example = self.convert(row)
            if not example.demonstrations and not self.keeps_missing:
                raise RefusedError(Reason.NO_DEMONSTRATION)
            prompt = self.style.apply(example.prompt, example.is_question)
        except RefusedError as error:
            self.report.refuse(error.reason, number, error.detail, dict(row))
            return None
        hits = self.overlap.hits(question_text(example.prompt)) if self.overlap else []
        if hits:
            self.report.contaminated.update(hit.benchmark for hit in hits)
            # By number, because the authors of some benchmarks ask not to publish the problems in plain text.
            detail = ", ".join(f"{hit.share:.0%} of {hit.benchmark}'s problem {hit.number}" for hit in hits)
            self.report.refuse(Reason.CONTAMINATED, number, detail, question_text(example.prompt))
            return None
        return _Candidate(number, prompt, example)

    def _is_kept(self, candidate: _Candidate) -> bool:
        """Whether a graded row is kept; a refused row is added to the report."""
        key = _prompt_key(candidate.prompt)
        refusal = candidate.refusal
        if key in self._kept_prompts:
            refusal = RefusedError(Reason.DUPLICATE)
        elif refusal is None and not isinstance(candidate.prompt, self.prompt_type or object):
            # A column has either texts or conversations, not both.
            refusal = RefusedError(Reason.MALFORMED, "texts and conversations in one column: set prompt_format")
        if refusal is not None:
            example = candidate.example
            excerpt = {"prompt": question_text(example.prompt), "solution": example.solution}
            self.report.refuse(refusal.reason, candidate.row_number, refusal.detail, excerpt)
            return False
        self._kept_prompts.add(key)
        self.prompt_type = self.prompt_type or type(candidate.prompt)
        return True

    def _finish(self, candidate: _Candidate) -> dict[str, Any]:
        self.report.kept += 1
        self.report.without_demonstration += not candidate.demonstration
        self.report.solution_from_box += candidate.example.solution_from_box
        return {
            "prompt": candidate.prompt,
            "demonstration": candidate.demonstration,
            "solution": candidate.example.solution,
            **candidate.example.extra,
        }


def _prompt_key(prompt: Prompt) -> bytes:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return blake2b(" ".join(text.split()).encode(), digest_size=8).digest()


def _verify(candidates: Sequence[_Candidate], verifier: Verifier) -> None:
    """Set each row's first demonstration that the verifier accepts, or the refusal of its first one if it accepts none.

    A row without demonstrations needs a solution that the verifier accepts as its own answer. Otherwise no rollout
    could ever be correct.
    """
    attempt = 0
    while undecided := [candidate for candidate in candidates if not candidate.is_decided]:
        texts = [_texts_to_verify(candidate.example)[attempt] for candidate in undecided]
        names = dict.fromkeys(name for candidate in undecided for name in candidate.example.extra)
        columns = {name: [candidate.example.extra.get(name) for candidate in undecided] for name in names}
        columns["solution"] = [candidate.example.solution for candidate in undecided]
        verdicts = verifier([candidate.prompt for candidate in undecided], texts, columns)
        for candidate, text, verdict in zip(undecided, texts, verdicts):
            if verdict == Verdict.RIGHT:
                candidate.demonstration = text if candidate.example.demonstrations else ""
                candidate.refusal = None
            elif candidate.refusal is None:
                candidate.refusal = _refusal(verdict, text, candidate.example)
            is_last = attempt + 1 == len(_texts_to_verify(candidate.example))
            candidate.is_decided = verdict == Verdict.RIGHT or is_last
        attempt += 1


def _texts_to_verify(example: Example) -> tuple[str, ...]:
    return example.demonstrations or (f"{BOXED}{example.solution.strip('$')}}}",)


def _refusal(verdict: Verdict, text: str, example: Example) -> RefusedError:
    if verdict == Verdict.TIMED_OUT:
        return RefusedError(Reason.TIMED_OUT)
    if verdict == Verdict.UNPARSEABLE_GOLD:
        return RefusedError(Reason.UNREADABLE_SOLUTION)
    if not example.demonstrations:
        return RefusedError(Reason.UNREADABLE_SOLUTION, "the verifier does not accept it as its own answer")
    answer = final_answer(text)
    if verdict == Verdict.WRONG:
        return RefusedError(Reason.WRONG, f"its answer is {(answer or text[-40:])[:80]!r}")
    if THINK in text and END_OF_THINK not in text:
        return RefusedError(Reason.UNFINISHED)
    if answer is None:
        return RefusedError(Reason.NO_BOX, f"it ends with {text[-60:]!r}")
    return RefusedError(Reason.UNREADABLE_ANSWER, f"its answer is {answer[:80]!r}")


def columns_of(rows: Iterator[Mapping[str, Any]]) -> tuple[list[str], Iterator[Mapping[str, Any]]]:
    """The union of the columns of the first hundred rows, and all the rows."""
    first = list(islice(rows, _ROWS_SEARCHED_FOR_COLUMNS))
    return list(dict.fromkeys(name for row in first for name in row)), chain(first, rows)


def prepare_rows(rows: Iterable[Mapping[str, Any]], columns: Collection[str]) -> tuple[list[dict[str, Any]], Report]:
    r"""Prepare rows in memory, as `hpt-trl prepare` does by default, but without decontamination.

    Args:
        rows: rows of any dataset that `converter` knows.
        columns: the columns of the dataset.

    Returns:
        The kept rows with `prompt`, `demonstration` and `solution`, and the report on all rows.

    Example:
        >>> rows = [
        ...     {"problem": "2 + 3?", "solution": r"It is \boxed{5}.", "answer": "5"},
        ...     {"problem": "2 + 4?", "solution": r"It is \boxed{7}.", "answer": "6"},
        ... ]
        >>> kept, report = prepare_rows(rows, columns=rows[0])
        >>> kept[0]["solution"], kept[0]["demonstration"]
        ('5', 'It is \\boxed{5}.')
        >>> report.kept, {str(reason): count for reason, count in report.refused.items()}
        (1, {"the demonstration's answer is wrong": 1})
    """
    preparation = Preparation(converter(columns))
    return list(preparation.run(rows)), preparation.report
