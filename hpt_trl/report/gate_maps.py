"""Converts `gate.parquet` into matrices over prompts and steps that are small enough to draw, and metrics by step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpt_trl.report.run_folder import Run

_MAX_COLUMNS, _MAX_ROWS = 400, 256
_FEW_POINTS = 20

_BY_STEP: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "hpt/solve_rate": lambda gate: gate["solve_rate"],
    "hpt/none_solved": lambda gate: (gate["solve_rate"] == 0).astype(float),
    "hpt/all_solved": lambda gate: (gate["solve_rate"] == 1).astype(float),
    "hpt/demonstration_share": lambda gate: ((gate["demonstration"] > 0) | (gate["off_policy"] > 0)).astype(float),
}
"""Metrics whose mean over the prompts of a step the history holds."""


def by_step(run: Run, metric: str) -> pd.Series:
    """A metric by optimizer step, from the gate history where the run logged few values and the history has more.

    Args:
        run: any run.
        metric: its name in the log.
    """
    logged = run.series(metric)
    if metric not in _BY_STEP or not 0 < len(logged) < _FEW_POINTS or run.gate is None:
        return logged
    recorded = _BY_STEP[metric](run.gate).groupby(run.gate["step"]).mean().dropna().rename(metric)
    # Step s of the history comes before optimizer step s + 1.
    return recorded.set_axis(recorded.index + 1) if len(recorded) > len(logged) else logged


def gate_share(gate: pd.DataFrame) -> pd.Series:
    """Fraction of each row's weight that is on its demonstration, in [0, 1]; NaN if all its weights are 0."""
    demonstration = gate["demonstration"] + gate["off_policy"]
    return demonstration / (demonstration + gate["rollouts"]).where(lambda total: total > 0)


def _thinned(values: Sequence[Any], max_count: int) -> np.ndarray:
    """At most `max_count` of the values, evenly spaced."""
    if len(values) <= max_count:
        return np.asarray(values)
    return np.asarray(values)[np.linspace(0, len(values) - 1, max_count).round().astype(int)]


def step_map(gate: pd.DataFrame, values: pd.Series) -> tuple[np.ndarray, list[int]]:
    """Arrange values by step, with the prompts of each step sorted by solve rate.

    Args:
        gate: content of `gate.parquet`.
        values: one value per row of `gate`.

    Returns:
        (prompts per step, steps) matrix, and the steps.
    """
    table = gate.assign(value=values)
    steps = _thinned(sorted(table["step"].unique()), _MAX_COLUMNS)
    columns = [
        rows.sort_values(["solve_rate", "value"], ascending=[True, False])["value"].to_numpy()
        for _, rows in table[table["step"].isin(steps)].groupby("step")
    ]
    height = max(map(len, columns))
    padded = [np.pad(column.astype(float), (0, height - len(column)), constant_values=np.nan) for column in columns]
    matrix = np.stack(padded, axis=1)
    return matrix[_thinned(range(height), _MAX_ROWS)], [int(step) for step in steps]


def prompt_map(gate: pd.DataFrame, values: pd.Series) -> tuple[np.ndarray, list[int]]:
    """Arrange values by prompt and step; each value is held until the prompt is sampled again.

    Prompts are sorted by their mean solve rate. If there are many, evenly spaced ones are selected.

    Args:
        gate: content of `gate.parquet`.
        values: one value per row of `gate`.

    Returns:
        (prompts, steps) matrix, and the steps.
    """
    order = gate.groupby("prompt_id")["solve_rate"].mean().sort_values(kind="stable", na_position="first").index
    prompts = _thinned(list(order), _MAX_ROWS)
    table = gate.assign(value=values.to_numpy())
    all_steps = sorted(gate["step"].unique())
    steps = _thinned(all_steps, _MAX_COLUMNS)
    wide = table[table["prompt_id"].isin(prompts)].pivot_table(
        index="prompt_id", columns="step", values="value", aggfunc="last", dropna=False
    )
    wide = wide.reindex(index=prompts, columns=all_steps).ffill(axis=1)[list(steps)]
    return wide.to_numpy(dtype=float), [int(step) for step in steps]


def has_repeated_prompts(gate: pd.DataFrame) -> bool:
    """Whether a run sampled most prompts repeatedly, so that a prompt has a history."""
    return not gate.empty and len(gate) >= 1.5 * gate["prompt_id"].nunique()
