"""`gate.parquet` -> matrices over questions and steps, small enough to be drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_MOST_COLUMNS, _MOST_ROWS = 400, 256


def gate_share(gate: pd.DataFrame) -> pd.Series:
    """Each row's share of weight on its demonstration, in [0, 1]; NaN where it learned from nothing."""
    demonstration = gate["demonstration"] + gate["off_policy"]
    return demonstration / (demonstration + gate["rollouts"]).where(lambda total: total > 0)


def _thinned(values: Sequence[Any], most: int) -> np.ndarray:
    """At most so many of the values, evenly spread."""
    if len(values) <= most:
        return np.asarray(values)
    return np.asarray(values)[np.linspace(0, len(values) - 1, most).round().astype(int)]


def step_map(gate: pd.DataFrame, values: pd.Series) -> tuple[np.ndarray, list[int]]:
    """(questions of a step, steps) values, each step's questions sorted by solve rate, and the steps.

    Args:
        gate: as in `gate.parquet`.
        values: of each of its rows.
    """
    table = gate.assign(value=values)
    steps = _thinned(sorted(table["step"].unique()), _MOST_COLUMNS)
    columns = [
        rows.sort_values(["solve_rate", "value"], ascending=[True, False])["value"].to_numpy()
        for _, rows in table[table["step"].isin(steps)].groupby("step")
    ]
    height = max(map(len, columns))
    padded = [np.pad(column.astype(float), (0, height - len(column)), constant_values=np.nan) for column in columns]
    picture = np.stack(padded, axis=1)
    return picture[_thinned(range(height), _MOST_ROWS)], [int(step) for step in steps]


def question_map(gate: pd.DataFrame, values: pd.Series) -> tuple[np.ndarray, list[int]]:
    """(questions, steps) values, each question's from its visit to its next, and the steps.

    Questions are sorted by their mean solve rate; of many, evenly spread ones are shown.

    Args:
        gate: as in `gate.parquet`.
        values: of each of its rows.
    """
    order = gate.groupby("prompt_id")["solve_rate"].mean().sort_values(kind="stable", na_position="first").index
    questions = _thinned(list(order), _MOST_ROWS)
    table = gate.assign(value=values.to_numpy())
    steps = _thinned(sorted(gate["step"].unique()), _MOST_COLUMNS)
    wide = table[table["prompt_id"].isin(questions)].pivot_table(
        index="prompt_id", columns="step", values="value", aggfunc="last", dropna=False
    )
    wide = wide.reindex(index=questions, columns=sorted(gate["step"].unique())).ffill(axis=1)[list(steps)]
    return wide.to_numpy(dtype=float), [int(step) for step in steps]


def is_revisited(gate: pd.DataFrame) -> bool:
    """Whether a run came back to its questions, so that a question has a history."""
    return not gate.empty and len(gate) >= 1.5 * gate["prompt_id"].nunique()
