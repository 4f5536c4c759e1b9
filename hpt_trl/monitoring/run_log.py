"""Files that a run writes to `_record` while it trains; they can be read at any time, also after the run was killed.

- `run.json`: configuration and versions, written when training begins.
- `log.jsonl`: one line per log entry. transformers' Trainer saves its log only with checkpoints and at the end.
- `samples.jsonl`: a few rollouts of each logged step.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpt_trl.common.errors import LocalRunError
from hpt_trl.common.masking import mask_tokens, masked
from hpt_trl.common.versions import versions_of
from hpt_trl.monitoring.samples import RECORD, SampleLog

LOG_NAME = f"{RECORD}/log.jsonl"
RUN_NAME = f"{RECORD}/run.json"
_PACKAGES = ("trl", "transformers", "accelerate", "torch")


class StepClock:
    """Measures how many seconds the parts of an optimizer step take."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str, is_training: bool) -> Iterator[None]:
        """Add the duration of the `with` block to a part of the step; evaluation is not counted."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if is_training:
                self._seconds[part] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """Return and reset the seconds of generation and of reward functions; 0 if the step reused its rollouts."""
        seconds = {part: self._seconds[part] for part in ("generation", "verdicts")}
        self._seconds.clear()
        return seconds


class RunRecorder(TrainerCallback):
    """
    Writes `run.json`, `log.jsonl` and `samples.jsonl` to `_record` in the output folder.

    Args:
        samples: samples of the last generation.
        facts: returns the content of `run.json` in addition to configuration and versions, when training begins.
    """

    def __init__(self, samples: SampleLog, facts: Callable[[], Mapping[str, Any]]) -> None:
        self.samples = samples
        self.facts = facts
        self._has_begun = False  # `evaluate()` without training writes no record

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        run = {
            **self.facts(),
            "max_steps": state.max_steps,
            "processes": args.world_size,
            "versions": versions_of(_PACKAGES),
            # `to_dict` masks the options that are tokens.
            "config": args.to_dict(),
        }
        with _wrap_io_errors():
            (folder / RECORD).mkdir(parents=True, exist_ok=True)
            (folder / RUN_NAME).write_text(
                mask_tokens(json.dumps(masked(run), indent=1, default=str)), encoding="utf-8"
            )
            # The log of a resumed run starts with that of its checkpoint.
            (folder / LOG_NAME).write_text("".join(map(_line, state.log_history)), encoding="utf-8")
            self.samples.begin(folder, state.global_step)
        self._has_begun = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not (state.is_world_process_zero and self._has_begun):
            return
        folder = Path(str(args.output_dir))
        with _wrap_io_errors(), (folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(_line(state.log_history[-1]))
            if "loss" in state.log_history[-1]:
                self.samples.write(folder)


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, default=str) + "\n"


@contextmanager
def _wrap_io_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalRunError(
            f"The log of the run could not be written: {error}. Make sure that the disk has free space, then continue "
            "from the last checkpoint with resume_from_checkpoint=True."
        ) from error
