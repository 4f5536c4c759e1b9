"""`gate.parquet`: solve rate and gate weights of every prompt in every generation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.common.errors import LocalRunError
from hpt_trl.common.files import atomic_path

FILE_NAME = "gate.parquet"
COLUMNS = ("step", "prompt_id", "solve_rate", "rollouts", "demonstration", "off_policy")
_SCHEMA = pa.schema([(name, pa.float64()) for name in COLUMNS]).set(0, pa.field("step", pa.int64()))
_SCHEMA = _SCHEMA.set(1, pa.field("prompt_id", pa.string()))

_NEW_SHARE = 0.01
"""New rows, as a share of those in the file, from which on a log line writes it again."""


class GateHistory:
    """Rows `step, prompt_id, solve_rate, rollouts, demonstration, off_policy`, one per prompt and generation."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._rows = self._written_rows = 0

    def add(self, step: int, prompt_ids: Sequence[str], solve_rates: Sequence[float], weights: GateWeights) -> None:
        """Record one generation.

        Args:
            step: optimizer step these rollouts were generated for, counted from 0.
            prompt_ids: P identifiers.
            solve_rates: P solve rates, NaN where no rollout could be scored.
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
        self._append(pa.table(columns, schema=_SCHEMA))

    def _append(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._rows += len(table)

    @property
    def is_due(self) -> bool:
        """Whether enough rows are new to write the file again: the time for all writes is linear in the rows."""
        return self._rows - self._written_rows > _NEW_SHARE * self._written_rows

    def write(self, folder: str | Path) -> None:
        """Write `gate.parquet` into a folder."""
        if not self._tables:
            return
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        self._written_rows = self._rows
        # It is rewritten while the run goes on, and complete checkpoints are flushed: no flush is needed here.
        with atomic_path(Path(folder) / FILE_NAME, durable=False) as temporary:
            pq.write_table(self._tables[0], temporary)

    def begin(self, folders: Sequence[str | Path], step: int) -> None:
        """Start a history at `step`: empty, or that of the resumed run without the steps that are repeated.

        Args:
            folders: where to look for the file, the checkpoint first.
            step: optimizer steps done.
        """
        paths = [Path(folder) / FILE_NAME for folder in folders]
        past = next((path for path in paths if path.exists()), None)
        self._tables, self._rows, self._written_rows = [], 0, 0
        if step > 0 and past is not None:
            self._append(_read_rows(past, step))


def _read_rows(path: Path, step: int) -> pa.Table:
    """Rows of the steps before `step`."""
    try:
        rows = pd.read_parquet(path)[list(COLUMNS)]
        return pa.Table.from_pandas(rows[rows["step"] < step], schema=_SCHEMA, preserve_index=False)
    # pyarrow's errors are ValueErrors and OSErrors; a missing column is a KeyError.
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise LocalRunError(
            f"{str(path)!r} is not a gate history with the columns {list(COLUMNS)}: {' '.join(str(error).split())}. "
            "Restore it, resume from another checkpoint, or delete the file to start the history here."
        ) from error


class GateHistoryCallback(TrainerCallback):
    """Writes `gate.parquet` to the output folder at logs and checkpoints, and reads it when a run is resumed.

    Args:
        history: what is written.
        must_wait: whether the file must not change now, because it is being uploaded.
        resumed_from: the checkpoint that the run is resumed from, if any.
    """

    def __init__(
        self,
        history: GateHistory,
        must_wait: Callable[[], bool] = lambda: False,
        resumed_from: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.history = history
        self.must_wait = must_wait
        self.resumed_from = resumed_from

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            checkpoint = self.resumed_from()
            folders = [checkpoint] if checkpoint else []
            self.history.begin([*folders, str(args.output_dir)], state.global_step)

    def _write(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and not self.must_wait():
            try:
                self.history.write(str(args.output_dir))
            except OSError as error:
                raise LocalRunError(
                    f"{FILE_NAME} could not be written: {error}. Check that the disk has room, and resume from the "
                    "last checkpoint with resume_from_checkpoint=True."
                ) from error

    on_save = on_train_end = _write

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.history.is_due:
            self._write(args, state, control)
