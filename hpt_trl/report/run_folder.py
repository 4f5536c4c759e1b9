"""Reads the folder of a run that is finished, still running or killed, of HPTTrainer or of TRL's GRPOTrainer.

from hpt_trl.report.run_folder import read_run

run = read_run("runs/quickstart/hpt_seed0")
run.series("hpt/solve_rate").tail()  # by optimizer step
run.gate  # the weights the gate chose for each prompt
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.durability.gate_history import COLUMNS
from hpt_trl.durability.gate_history import FILE_NAME as GATE_NAME
from hpt_trl.monitoring.run_log import LOG_NAME, RUN_NAME
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES_NAME
from hpt_trl.monitoring.samples import Sample, best_and_worst, read_lines, read_samples

_STATE_NAME = "trainer_state.json"
_MAX_TABLES = 6


@dataclass(frozen=True)
class Run:
    """
    The content of a run folder.

    Args:
        folder: the folder of the run.
        log: one row per logged training step, indexed by `step` (completed optimizer steps); one column per metric.
        evaluations: the same for evaluations, whose metrics begin with `eval_`.
        gate: `gate.parquet` (see [`~hpt_trl.durability.gate_history.GateHistory`]), or None.
        samples: rollouts with their rewards, ordered by step.
        facts: content of `run.json`: `config`, `versions`, `model`, `reward_functions`, `max_steps`, ...; may be empty.
        source: the file that the log was read from, or None.
        is_finished: whether training has finished.
        notes: sentences that describe what could not be read.
    """

    folder: Path
    log: pd.DataFrame
    evaluations: pd.DataFrame
    gate: pd.DataFrame | None = None
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    is_finished: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        """Options by name; empty for a run without `run.json`."""
        return self.facts.get("config", {})

    @property
    def steps(self) -> int:
        """Number of optimizer steps completed, as far as it has been recorded."""
        logged = int(self.log.index.max()) if len(self.log) else 0
        # The gate records step s when s steps have been completed.
        gated = 0 if self.gate is None or self.gate.empty else int(self.gate["step"].max())
        return max(logged, gated)

    @property
    def max_steps(self) -> int | None:
        """Number of planned optimizer steps, if known."""
        return self.facts.get("max_steps")

    @property
    def has_gate(self) -> bool:
        """Whether a gate chose between rollouts and demonstrations; False for GRPO, SFT or a fixed mixture."""
        if not self.facts:
            return self.gate is not None
        return self.facts.get("gate") != "off" and self.facts.get("algorithm") == "hpt" and self.gate is not None

    def series(self, name: str) -> pd.Series:
        """A metric by optimizer step, without the steps that did not log it; empty if it was never logged."""
        if name not in self.log:
            return pd.Series(dtype=float, name=name)
        return pd.to_numeric(self.log[name], errors="coerce").dropna()


def early(values: pd.Series) -> float:
    """Mean of the first tenth of the logged values, at least one; NaN if there are none."""
    return float(values.iloc[: max(1, len(values) // 10)].mean())


def late(values: pd.Series) -> float:
    """Mean of the last quarter of the logged values, at least one; NaN if there are none."""
    return float(values.iloc[-max(1, len(values) // 4) :].mean())


def read_run(folder: str | Path) -> Run:
    """Read a run from its live log, its final trainer state, or its latest readable checkpoint.

    Args:
        folder: `output_dir` of a run, or one of its checkpoints.

    Raises:
        FileNotFoundError: if the folder does not exist, or contains neither a log nor a gate history.
        ValueError: if a file of the run has been damaged or replaced.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {str(folder)!r} does not exist. Pass the output_dir of a run.")
    notes: list[str] = []
    source, entries = _log(folder, notes)
    gate = _gate(folder, notes)
    if source is None and gate is None:
        raise FileNotFoundError(
            f"{str(folder)!r} is not a run folder: it contains neither {LOG_NAME} nor {_STATE_NAME}, no checkpoint "
            f"with {_STATE_NAME}, and no {GATE_NAME}. Pass the output_dir of a run that has logged a step."
        )
    facts = _facts(folder, notes)
    log = _frame([entry for entry in entries if _describes_steps(entry)])
    has_ended = any("train_runtime" in entry for entry in entries)
    return Run(
        folder=folder,
        log=log,
        evaluations=_frame([entry for entry in entries if any(name.startswith("eval_") for name in entry)]),
        gate=gate,
        samples=read_samples(folder / SAMPLES_NAME) or _table_samples(folder),
        facts=facts,
        source=source,
        is_finished=has_ended or (len(log) > 0 and facts.get("max_steps") == log.index.max()),
        notes=notes,
    )


def _describes_steps(entry: dict[str, Any]) -> bool:
    """Whether an entry has metrics of training steps. The last one has those since the entry before it, but no loss."""
    return "loss" in entry or ("train_runtime" in entry and any("/" in name for name in entry))


def _frame(entries: list[dict[str, Any]]) -> pd.DataFrame:
    entries = [entry for entry in entries if isinstance(entry.get("step"), (int, float))]
    if not entries:
        return pd.DataFrame(index=pd.Index([], name="step", dtype=int))
    # If a step was logged twice, by a run and after its resume, the later entry counts.
    frame = pd.DataFrame(entries).drop_duplicates("step", keep="last").set_index("step").sort_index()
    return frame.apply(pd.to_numeric, errors="coerce")


def _log(folder: Path, notes: list[str]) -> tuple[Path | None, list[dict[str, Any]]]:
    """The first readable file that contains a log, and the entries of the log."""
    live = folder / LOG_NAME
    if live.is_file():
        return live, read_lines(live, "step")
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    steps = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    checkpoints = [path for _, path in sorted(steps.items(), reverse=True)]
    for parent in [folder, *checkpoints]:
        path = parent / _STATE_NAME
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["log_history"]
            return path, [entry for entry in entries if isinstance(entry, dict)]
        except (ValueError, LookupError, TypeError):
            notes.append(f"{path.relative_to(folder)} is incomplete and was ignored.")
    notes.append("There is no log: the run was stopped before its first log entry or checkpoint.")
    return None, []


def _gate(folder: Path, notes: list[str]) -> pd.DataFrame | None:
    path = folder / GATE_NAME
    if not path.is_file():
        notes.append(
            f"There is no {GATE_NAME}, so it is unknown what each prompt was trained on. TRL does not write it."
        )
        return None
    try:
        return pd.read_parquet(path)[list(COLUMNS)]
    except (ValueError, OSError, KeyError):
        notes.append(f"{GATE_NAME} is not a gate history and was ignored.")
        return None


def _facts(folder: Path, notes: list[str]) -> dict[str, Any]:
    path = folder / RUN_NAME
    if not path.is_file():
        notes.append(f"There is no {RUN_NAME}, so the configuration of this run is unknown.")
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("config", {}), dict):
        notes.append(f"{RUN_NAME} is incomplete, so the configuration of this run is unknown.")
        return {}
    return facts


def _table_samples(folder: Path) -> list[Sample]:
    """Samples from the tables that TRL's `log_completions` writes; from evenly spaced ones if there are many."""
    paths = sorted((folder / "completions").glob("completions_*.parquet"))
    if len(paths) > _MAX_TABLES:
        paths = [paths[round(i * (len(paths) - 1) / (_MAX_TABLES - 1))] for i in range(_MAX_TABLES)]
    samples: list[Sample] = []
    for path in paths:
        table = pd.read_parquet(path)
        if table.empty:
            continue
        others = table.drop(columns=["step", "prompt", "completion", "advantage"], errors="ignore")
        rewards = others.select_dtypes("number")
        columns = {
            "prompt": table["prompt"].tolist(),
            "completion": table["completion"].tolist(),
            "rewards": rewards.to_dict("list"),
            "extra": others.drop(columns=rewards.columns).to_dict("list"),
        }
        # TRL records the step that was trained on them, which is one later.
        samples += best_and_worst(columns, int(table["step"].iloc[0]) - 1).values()
    return samples
