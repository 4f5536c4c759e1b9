"""A few rollouts of every logged step, with their verdicts: what a report shows, and the panel in the terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hpt_trl.algorithm.gate import GateWeights

# The underscore keeps it from the Hub: transformers pushes nothing whose path begins with one. Samples quote the
# training data, and what is being pushed may not grow meanwhile.
RECORD = "_record"
FILE_NAME = f"{RECORD}/samples.jsonl"
LONGEST_TEXT = 4000
"""Characters kept of a prompt or completion."""


@dataclass
class Sample:
    """
    One rollout and what was made of it.

    Args:
        step: optimizer steps done when it was generated.
        prompt, completion: texts, their middle left out beyond `LONGEST_TEXT` characters.
        rewards: of each reward function; None where it could not score.
        notes: what reward functions log beside them: `accuracy_reward` its `answer`, the `solution` and the `verdict`.
        learned_from: "its rollouts", "a demonstration", "both" or "nothing": what the gate let its prompt learn from;
            None if not known.
        solve_rate: share of the prompt's rollouts that solved it; None if not known.
    """

    step: int
    prompt: str
    completion: str
    rewards: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    learned_from: str | None = None
    solve_rate: float | None = None


def text_of(messages: Any) -> str:
    """A text as it is; of messages, their contents, each behind its role. What is not text is left out."""
    if isinstance(messages, str):
        return messages
    parts = []
    for message in messages if messages is not None else ():
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part.get("text") or "" for part in content)
        parts.append(content if message.get("role") == "assistant" else f"{message.get('role')}: {content}")
    return "\n".join(parts)


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, or its two ends and how much was left out between them."""
    left_out = len(text) - longest
    half = longest // 2
    return text if left_out <= 0 else f"{text[:half]}\n[... {left_out:,} characters ...]\n{text[-half:]}"


def best_and_worst(rollouts: Mapping[str, Any], step: int) -> dict[int, Sample]:
    """The rollouts of highest and of lowest reward, by row; one if all rewards are equal, none if there are none.

    Args:
        rollouts: columns of R rows: `prompt`, `completion`, `rewards` and `extra` (columns by name).
        step: optimizer steps done.
    """
    columns = rollouts["rewards"]
    # A column that was not logged this time still holds older rows.
    extra = {name: values for name, values in rollouts["extra"].items() if len(values) == len(rollouts["prompt"])}
    sums_R = [_sum(values) for values in zip(*columns.values())]
    scored = {row: total for row, total in enumerate(sums_R) if total is not None}
    if not scored:
        return {}
    ends = {max(scored, key=scored.__getitem__), min(scored, key=scored.__getitem__)}
    return {
        row: Sample(
            step,
            shortened(text_of(rollouts["prompt"][row])),
            shortened(text_of(rollouts["completion"][row])),
            {name: _number(values[row]) for name, values in columns.items()},
            {name: shortened(str(values[row])) for name, values in extra.items()},
        )
        for row in sorted(ends)
    }


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _sum(values: Sequence[Any]) -> float | None:
    numbers = [number for number in map(_number, values) if number is not None]
    return sum(numbers) if numbers else None


def _source(weights: GateWeights, prompt: int) -> str:
    by_demonstration = bool(weights.demonstration_P[prompt] or weights.off_policy_P[prompt])
    by_rollouts = bool(weights.rollouts_P[prompt])
    return {(True, False): "a demonstration", (False, True): "its rollouts", (True, True): "both"}.get(
        (by_demonstration, by_rollouts), "nothing"
    )


class SampleLog:
    """Samples of the last generation, and a file of those that were there when the run logged."""

    def __init__(self) -> None:
        self.latest: list[Sample] = []

    def note(
        self,
        rollouts: Mapping[str, Any],
        step: int,
        group_size: int,
        solve_rate_P: Tensor | None = None,
        weights: GateWeights | None = None,
    ) -> None:
        """Take the best and the worst rollout of a generation for the latest samples.

        Args:
            rollouts, step: as `best_and_worst` takes them; rows of a prompt stand together.
            group_size: rollouts of a prompt.
            solve_rate_P: (P,) shares of solved rollouts, NaN where none could be scored.
            weights: (P,) tensors of the gate.
        """
        samples = best_and_worst(rollouts, step)
        for row, sample in samples.items():
            prompt = row // group_size
            if solve_rate_P is not None:
                sample.solve_rate = _number(solve_rate_P[prompt])
            if weights is not None:
                sample.learned_from = _source(weights, prompt)
        self.latest = list(samples.values())

    def begin(self, folder: str | Path, step: int) -> None:
        """Start the file anew, or at `step` of a run that is resumed, without what is to be done again."""
        self.latest = []
        path = Path(folder) / FILE_NAME
        kept = [sample for sample in read_samples(path) if sample.step < step]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(sample) for sample in kept), encoding="utf-8")

    def write(self, folder: str | Path) -> None:
        """Append the latest samples."""
        with (Path(folder) / FILE_NAME).open("a", encoding="utf-8") as file:
            file.writelines(_line(sample) for sample in self.latest)


def _line(sample: Sample) -> str:
    return json.dumps(asdict(sample), ensure_ascii=False) + "\n"


def read_samples(path: Path) -> list[Sample]:
    """Samples of a file, none if there is no file; a line that a killed run left half-written is passed over.

    Raises:
        ValueError: if the file is not what `SampleLog` writes.
    """
    try:
        return [Sample(**entry) for entry in read_lines(path, "completion")]
    except TypeError as error:
        raise _not_ours(path, error) from None


def read_lines(path: Path, key: str) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, none if there is no file, without a last line that was cut short.

    Args:
        path: the file.
        key: what each of them must have.

    Raises:
        ValueError: if a line is something else.
    """
    if not path.is_file():
        return []
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    try:
        # Not `splitlines`, which takes other letters for ends of lines too.
        entries = [json.loads(line) for line in whole.split("\n") if line]
    except json.JSONDecodeError as error:
        raise _not_ours(path, error) from None
    for entry in entries:
        if not isinstance(entry, dict) or key not in entry:
            raise _not_ours(path, f"a line without {key!r}")
    return entries


def _not_ours(path: Path, problem: object) -> ValueError:
    return ValueError(f"{str(path)!r} is not what a run writes: {problem}. Restore or delete it.")
