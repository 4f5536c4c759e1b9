"""`gate.parquet`: what every prompt learned from, at every step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.common.errors import LocalRunError
from hpt_trl.common.files import atomic_path

FILE_NAME = "gate.parquet"


class GateHistory:
    """Rows `step, prompt_id, solve_rate, rollouts, demonstration, off_policy`, one a prompt and generation."""

    def __init__(self) -> None:
        self._frames: list[pd.DataFrame] = []

    def add(self, step: int, prompt_ids: Sequence[str], solve_rates: Sequence[float], weights: GateWeights) -> None:
        """Note one generation.

        Args:
            step: optimizer step these rollouts were generated for, counted from 0.
            prompt_ids: P identifiers.
            solve_rates: P shares of solved rollouts, NaN where none could be scored.
            weights: (P,) tensors.
        """
        columns = {
            "step": [step] * len(prompt_ids),
            "prompt_id": list(prompt_ids),
            "solve_rate": list(solve_rates),
            "rollouts": weights.rollouts_P.tolist(),
            "demonstration": weights.demonstration_P.tolist(),
            "off_policy": weights.off_policy_P.tolist(),
        }
        self._frames.append(pd.DataFrame(columns))

    def write(self, folder: str | Path) -> None:
        """Write `gate.parquet`, so that a reader sees the old file or the new one, never half of it."""
        if not self._frames:
            return
        self._frames = [pd.concat(self._frames, ignore_index=True)]
        # Rewritten at every log line, and whole in every checkpoint: nothing is lost without a flush here.
        with atomic_path(Path(folder) / FILE_NAME, durable=False) as temporary:
            self._frames[0].to_parquet(temporary, index=False)

    def begin(self, folders: Sequence[str | Path], step: int) -> None:
        """Start a history at `step`: empty, or that of the run being resumed without the steps to be done again.

        Args:
            folders: where to look for the past, the checkpoint first.
            step: optimizer steps done.
        """
        paths = [Path(folder) / FILE_NAME for folder in folders]
        past = next((path for path in paths if path.exists()), None)
        self._frames = []
        if step > 0 and past is not None:
            rows = pd.read_parquet(past)
            self._frames = [rows[rows["step"] < step]]


class GateHistoryCallback(TrainerCallback):
    """Keep `gate.parquet` in the output folder in step with log, checkpoint and resume.

    Args:
        history: what is written.
        must_wait: whether the file may not change now, because it is being uploaded.
    """

    def __init__(self, history: GateHistory, must_wait: Callable[[], bool] = lambda: False) -> None:
        self.history = history
        self.must_wait = must_wait
        self.checkpoint: str | None = None  # the one this run resumes from

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            folders = [self.checkpoint] if self.checkpoint else []
            self.history.begin([*folders, str(args.output_dir)], state.global_step)

    def _write(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and not self.must_wait():
            try:
                self.history.write(str(args.output_dir))
            except OSError as error:
                raise LocalRunError(
                    f"{FILE_NAME} could not be written: {error}. See that the disk has room, and go on from the last "
                    "checkpoint with resume_from_checkpoint=True."
                ) from error

    on_log = on_save = on_train_end = _write
