"""`gate.parquet` holds every row at checkpoints and at the end; log lines write it in linear time."""

import pandas as pd
import torch

from hpt_trl.algorithm.gate import GateWeights
from hpt_trl.durability.gate_history import COLUMNS, FILE_NAME, GateHistory

WEIGHTS = GateWeights(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(2))


def test_log_lines_write_few_times_the_rows_of_the_history(tmp_path):
    history, rows_written, most_missing = GateHistory(), 0, 0.0
    for step in range(2_000):
        history.add(step, ["a", "b"], [0.5, float("nan")], WEIGHTS)
        if history.is_due:
            history.write(tmp_path)
            rows_written, written = rows_written + 2 * (step + 1), step + 1
        most_missing = max(most_missing, 1 - written / (step + 1))
    # At 1% of new rows a time, about 100 times the rows; at every line, 1,000 times.
    assert rows_written < 110 * 4_000
    assert most_missing < 0.01
    history.write(tmp_path)
    rows = pd.read_parquet(tmp_path / FILE_NAME)
    assert list(rows.columns) == list(COLUMNS)
    assert rows["step"].tolist() == [step for step in range(2_000) for _ in range(2)]
    assert rows["prompt_id"].tolist() == ["a", "b"] * 2_000
    assert rows["solve_rate"].isna().sum() == 2_000


def test_a_resumed_history_begins_with_the_rows_before_its_step(tmp_path):
    history = GateHistory()
    for step in range(3):
        history.add(step, ["a", "b"], [step / 4, float("nan")], WEIGHTS)
    history.write(tmp_path)
    resumed = GateHistory()
    resumed.begin([tmp_path / "gone", tmp_path], step=2)
    resumed.add(2, ["a", "c"], [1.0, 0.0], WEIGHTS)
    assert resumed.is_due
    resumed.write(tmp_path)
    rows = pd.read_parquet(tmp_path / FILE_NAME)
    assert rows["prompt_id"].tolist() == ["a", "b", "a", "b", "a", "c"]
    assert rows["solve_rate"].fillna(-1).tolist() == [0.0, -1.0, 0.25, -1.0, 1.0, 0.0]
    assert rows["demonstration"].tolist() == [0.0, 1.0] * 3
