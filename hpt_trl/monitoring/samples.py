"""A few rollouts of every logged step with their rewards, shown in the report and in the terminal panel."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.common.escaping import encodable
from hpt_trl.common.logs import get_logger
from hpt_trl.common.masking import mask_tokens, masked

logger = get_logger(__name__)

# transformers does not push paths that begin with an underscore. Samples quote the training data, and a file must not
# grow while it is being uploaded.
RECORD = "_record"
FILE_NAME = f"{RECORD}/samples.jsonl"
MAX_TEXT_LENGTH = 4000
"""Number of characters kept of a prompt or completion."""


@dataclass
class Sample:
    """
    One rollout, its rewards, and what its prompt was trained on.

    Args:
        step: number of completed optimizer steps when it was generated.
        prompt: text of the prompt; beyond `MAX_TEXT_LENGTH` characters, the middle is left out.
        completion: text of the completion, shortened in the same way.
        rewards: reward by reward function; None if the function could not score the rollout.
        notes: other columns that reward functions log; `accuracy_reward` logs `answer`, `solution` and `verdict`.
        learned_from: what the gate chose to train the prompt on: "its rollouts", "a demonstration", "both" or
            "nothing"; None if unknown.
        solve_rate: fraction of the prompt's rollouts that solved it, in [0, 1]; None if unknown.
        demonstration: text of the demonstration that the prompt was trained on, shortened like the others; None if it
            was trained on none, or it is unknown.
    """

    step: int
    prompt: str
    completion: str
    rewards: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    learned_from: str | None = None
    solve_rate: float | None = None
    demonstration: str | None = None


def text_of(messages: Any) -> str:
    """Return a text unchanged; join messages into one text, each preceded by its role. Non-text parts are left out."""
    if isinstance(messages, str):
        return messages
    parts = []
    for message in messages if messages is not None else ():
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part.get("text") or "" for part in content)
        parts.append(content if message.get("role") == "assistant" else f"{message.get('role')}: {content}")
    return "\n".join(parts)


def shortened(text: str, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return the text or, if it is too long, its two ends and the number of characters left out between them.

    Lone surrogates, which no file can hold, become their escape sequences.
    """
    text = encodable(text)
    left_out = len(text) - max_length
    half = max_length // 2
    return text if left_out <= 0 else f"{text[:half]}\n[... {left_out:,} characters ...]\n{text[-half:]}"


def writable(values: Sequence[Any]) -> list[Any]:
    """The values of a column so that a table on disk can hold them: texts that can be encoded, or numbers.

    Example:
        >>> writable(["a", None]), writable([1, 0.5]), writable([1, "a", b"b"])
        (['a', None], [1, 0.5], ['1', 'a', "b'b'"])
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool}:
        return list(values)
    return [None if value is None else encodable(mask_tokens(str(value))) for value in values]


def best_and_worst(rollouts: Mapping[str, Any], step: int) -> dict[int, Sample]:
    """The rollouts with the highest and the lowest total reward, by row.

    Args:
        rollouts: columns of R rows: `prompt`, `completion`, `rewards` and `extra` (each of these two by name).
        step: number of completed optimizer steps.

    Returns:
        Two samples; one if all rewards are equal; none if no rollout could be scored.
    """
    columns = rollouts["rewards"]
    totals_R = [_sum(values) for values in zip(*columns.values())]
    scored = {row: total for row, total in enumerate(totals_R) if total is not None}
    if not scored:
        return {}
    best = max(scored, key=scored.__getitem__)
    worst = min(scored, key=scored.__getitem__)
    return {row: _sample(rollouts, row, step) for row in sorted({best, worst})}


def _sample(rollouts: Mapping[str, Any], row: int, step: int) -> Sample:
    # A column that was not logged in this step still holds the rows of an earlier one.
    extra = {name: values for name, values in rollouts["extra"].items() if len(values) == len(rollouts["prompt"])}
    return Sample(
        step,
        shortened(text_of(rollouts["prompt"][row])),
        shortened(text_of(rollouts["completion"][row])),
        {name: _number(values[row]) for name, values in rollouts["rewards"].items()},
        {name: shortened(str(values[row])) for name, values in extra.items()},
    )


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _sum(values: Sequence[Any]) -> float | None:
    numbers = [number for number in map(_number, values) if number is not None]
    return sum(numbers) if numbers else None


_WITH_DEMONSTRATION = ("a demonstration", "both")


def _source(weights: GateWeights, prompt: int) -> str:
    uses_demonstration = bool(weights.demonstration_P[prompt] or weights.off_policy_P[prompt])
    uses_rollouts = bool(weights.rollouts_P[prompt])
    if uses_demonstration and uses_rollouts:
        return "both"
    if uses_demonstration:
        return "a demonstration"
    return "its rollouts" if uses_rollouts else "nothing"


class SampleLog:
    """Holds the samples of the last generation, and appends them to a file at every logged step."""

    def __init__(self) -> None:
        self.latest: list[Sample] = []

    def note(
        self,
        rollouts: Mapping[str, Any],
        step: int,
        group_size: int,
        solve_rate_P: Tensor | None = None,
        weights: GateWeights | None = None,
        demonstration_of: Callable[[int], str | None] | None = None,
    ) -> None:
        """Make the best and the worst rollout of a generation the latest samples.

        If neither is of a prompt that is trained on its demonstration, a rollout of such a prompt is added.

        Args:
            rollouts: columns as in `best_and_worst`; the rows of a prompt are adjacent.
            step: number of completed optimizer steps.
            group_size: number of rollouts per prompt.
            solve_rate_P: (P,) solve rates; NaN if no rollout could be scored.
            weights: weights chosen by the gate, tensors of shape (P,).
            demonstration_of: returns the text of a prompt's demonstration, None if it is not known.
        """
        samples = best_and_worst(rollouts, step)
        shown = [row // group_size for row in samples]
        if shown and weights and not any(_source(weights, prompt) in _WITH_DEMONSTRATION for prompt in shown):
            prompts = range(len(weights.rollouts_P))
            learning = (prompt for prompt in prompts if _source(weights, prompt) in _WITH_DEMONSTRATION)
            rows = (prompt * group_size for prompt in islice(learning, 1))
            samples |= {row: _sample(rollouts, row, step) for row in rows}
        for row, sample in samples.items():
            prompt = row // group_size
            if solve_rate_P is not None:
                sample.solve_rate = _number(solve_rate_P[prompt])
            if weights is not None:
                sample.learned_from = _source(weights, prompt)
                if demonstration_of is not None and sample.learned_from in _WITH_DEMONSTRATION:
                    text = demonstration_of(prompt)
                    sample.demonstration = None if text is None else shortened(text)
        self.latest = list(samples.values())

    def begin(self, folder: str | Path, step: int) -> None:
        """Start a new file, or truncate that of a resumed run at `step`, because later steps will be repeated."""
        self.latest = []
        path = Path(folder) / FILE_NAME
        kept = []
        if step > 0:
            try:
                kept = [sample for sample in read_samples(path) if sample.step < step]
            except ValueError as error:
                logger.warning(f"The samples of earlier steps are lost: {error}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(sample) for sample in kept), encoding="utf-8")

    def write(self, folder: str | Path) -> None:
        """Append the latest samples to the file."""
        with (Path(folder) / FILE_NAME).open("a", encoding="utf-8") as file:
            file.writelines(_line(sample) for sample in self.latest)


def _line(sample: Sample) -> str:
    return json.dumps(masked(asdict(sample)), ensure_ascii=False) + "\n"


def read_samples(path: Path) -> list[Sample]:
    """Read samples from a file, if it exists; ignore an incomplete last line, which a killed run may leave.

    Raises:
        ValueError: if `SampleLog` did not write the file.
    """
    try:
        samples = [Sample(**entry) for entry in read_lines(path, "completion")]
    except TypeError as error:
        raise _unexpected_content(path, error) from None
    for sample in samples:
        if not _has_types(sample):
            raise _unexpected_content(path, f"a sample with values of other types at step {sample.step!r}")
    return samples


def _has_types(sample: Sample) -> bool:
    """Whether the values of a sample have the types that `SampleLog` writes."""
    is_text = all(isinstance(text, str) for text in (sample.prompt, sample.completion))
    has_tables = isinstance(sample.rewards, dict) and isinstance(sample.notes, dict)
    numbers = [sample.solve_rate, *(sample.rewards.values() if has_tables else ())]
    return (
        isinstance(sample.step, int)
        and is_text
        and has_tables
        and all(number is None or isinstance(number, (int, float)) for number in numbers)
        and all(text is None or isinstance(text, str) for text in (sample.learned_from, sample.demonstration))
    )


def read_lines(path: Path, key: str) -> list[dict[str, Any]]:
    """Read the objects of a JSON Lines file, if it exists; ignore an incomplete last line.

    Args:
        path: the file.
        key: key that every object must have.

    Raises:
        ValueError: if a line is not such an object.
    """
    if not path.is_file():
        return []
    complete, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    try:
        # Not `splitlines`, which also splits at other characters, such as U+2028.
        entries = [json.loads(line) for line in complete.split("\n") if line]
    except json.JSONDecodeError as error:
        raise _unexpected_content(path, error) from None
    for entry in entries:
        if not isinstance(entry, dict) or key not in entry:
            raise _unexpected_content(path, f"a line without {key!r}")
    return entries


def _unexpected_content(path: Path, problem: object) -> ValueError:
    return ValueError(f"{str(path)!r} was not written by a run: {problem}. Restore or delete it.")
