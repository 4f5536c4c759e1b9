"""A run's folder -> what is known of the run: finished, still going on, or killed; HPTTrainer's or GRPOTrainer's.

from hpt_trl.report.run_folder import read_run

run = read_run("runs/quickstart")
run.series("hpt/solve_rate").tail()  # by optimizer step
run.gate  # what each prompt learned from
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hpt_trl.durability.gate_history import FILE_NAME as GATE_NAME
from hpt_trl.monitoring.run_log import LOG_NAME, RUN_NAME
from hpt_trl.monitoring.samples import FILE_NAME as SAMPLES_NAME
from hpt_trl.monitoring.samples import Sample, best_and_worst, read_lines, read_samples

_STATE_NAME = "trainer_state.json"
_MOST_TABLES = 6


@dataclass(frozen=True)
class Run:
    """
    What a run's folder holds.

    Args:
        folder: the run's folder.
        log: a row a logged training step, indexed by `step` (optimizer steps done), a column a metric.
        evaluations: the same of evaluations, whose metrics begin with `eval_`.
        gate: `gate.parquet` (see [`~hpt_trl.durability.gate_history.GateHistory`]), or None.
        samples: rollouts with their rewards, in order of their steps.
        facts: what `run.json` holds: `config`, `versions`, `model`, `reward_functions`, `max_steps`, ...; or nothing.
        source: the file that the log was read from, or None.
        is_finished: whether training came to its end.
        notes: sentences on what could not be read.
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
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def config(self) -> dict[str, Any]:
        """Options by name; empty for a run that has no `run.json`."""
        return self.facts.get("config", {})

    @property
    def steps(self) -> int:
        """Optimizer steps done, as far as is written."""
        done = [int(self.log.index.max())] if len(self.log) else []
        # Rollouts of step s are noted when s steps are done.
        return max([*done, 0 if self.gate is None or self.gate.empty else int(self.gate["step"].max())])

    @property
    def max_steps(self) -> int | None:
        """Optimizer steps that were asked for, if known."""
        return self.facts.get("max_steps")

    @property
    def has_gate(self) -> bool:
        """Whether a gate chose between rollouts and demonstrations: not in GRPO, SFT or a fixed mixture."""
        if not self.facts:
            return self.gate is not None
        return self.facts.get("gate") != "off" and self.facts.get("algorithm") == "hpt" and self.gate is not None

    def series(self, name: str) -> pd.Series:
        """A metric by optimizer step, without the steps that did not log it; empty if none did."""
        if name not in self.log:
            return pd.Series(dtype=float, name=name)
        return pd.to_numeric(self.log[name], errors="coerce").dropna()


def early(values: pd.Series) -> float:
    """Mean of the first tenth of what was logged, at least one entry; NaN if nothing was."""
    return float(values.iloc[: max(1, len(values) // 10)].mean())


def late(values: pd.Series) -> float:
    """Mean of the last quarter of what was logged, at least one entry; NaN if nothing was."""
    return float(values.iloc[-max(1, len(values) // 4) :].mean())


def read_run(folder: str | Path) -> Run:
    """Read a run, from its live files, its final state, or its newest readable checkpoint.

    Args:
        folder: a run's `output_dir`, or one of its checkpoints.

    Raises:
        FileNotFoundError: if the folder does not exist, or holds neither a log nor a gate's history.
        ValueError: if a file of the run is no longer what was written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}. Give the output_dir of a run.")
    notes: list[str] = []
    source, entries = _log(folder, notes)
    gate = _gate(folder, notes)
    if source is None and gate is None:
        raise FileNotFoundError(
            f"{str(folder)!r} is not the folder of a run: it holds no {LOG_NAME}, {_STATE_NAME}, checkpoint with "
            f"one, or {GATE_NAME}. Give the output_dir of a run that has logged a step."
        )
    facts = _facts(folder, notes)
    training = _frame([entry for entry in entries if "loss" in entry])
    is_over = any("train_runtime" in entry for entry in entries)
    return Run(
        folder=folder,
        log=training,
        evaluations=_frame([entry for entry in entries if any(name.startswith("eval_") for name in entry)]),
        gate=gate,
        samples=read_samples(folder / SAMPLES_NAME) or _table_samples(folder),
        facts=facts,
        source=source,
        is_finished=is_over or (len(training) > 0 and facts.get("max_steps") == training.index.max()),
        notes=notes,
    )


def _frame(entries: list[dict[str, Any]]) -> pd.DataFrame:
    if not entries:
        return pd.DataFrame(index=pd.Index([], name="step", dtype=int))
    # Of a step that was logged twice, by a run and its continuation, the later holds.
    return pd.DataFrame(entries).drop_duplicates("step", keep="last").set_index("step").sort_index()


def _log(folder: Path, notes: list[str]) -> tuple[Path | None, list[dict[str, Any]]]:
    """The first of the files with a log that can be read, and its entries."""
    live = folder / LOG_NAME
    if live.is_file():
        return live, read_lines(live, "step")
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    steps = {int(match[1]): path for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}
    checkpoints = [path for _, path in sorted(steps.items(), reverse=True)]
    for path in (place / _STATE_NAME for place in [folder, *checkpoints]):
        if not path.is_file():
            continue
        try:
            return path, json.loads(path.read_text())["log_history"]
        except json.JSONDecodeError:
            notes.append(f"{path.relative_to(folder)} is cut short and was passed over.")
    notes.append("There is no log: the run was stopped before its first log or checkpoint.")
    return None, []


def _gate(folder: Path, notes: list[str]) -> pd.DataFrame | None:
    path = folder / GATE_NAME
    if not path.is_file():
        notes.append(
            f"There is no {GATE_NAME}: what each prompt learned from was not recorded (TRL's own trainers do not)."
        )
        return None
    return pd.read_parquet(path)


def _facts(folder: Path, notes: list[str]) -> dict[str, Any]:
    path = folder / RUN_NAME
    if not path.is_file():
        notes.append(f"There is no {RUN_NAME}: the configuration of this run is not known.")
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        notes.append(f"{RUN_NAME} is cut short: the configuration of this run is not known.")
        return {}


def _table_samples(folder: Path) -> list[Sample]:
    """Samples from the tables that TRL's `log_completions` writes, some of them if there are many."""
    paths = sorted((folder / "completions").glob("completions_*.parquet"))
    if len(paths) > _MOST_TABLES:
        paths = [paths[round(i * (len(paths) - 1) / (_MOST_TABLES - 1))] for i in range(_MOST_TABLES)]
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
        # TRL notes the step that has learned from them.
        samples += best_and_worst(columns, int(table["step"].iloc[0]) - 1).values()
    return samples
