"""Start, step and checkpoint by the number of rows: the command runs, and what was committed scales."""

import json
from pathlib import Path

import pytest

from hpt_trl.profiling.scale import history_seconds, measure

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "notebooks" / "results" / "benchmark" / "scale.json").read_text())
GUIDE = (ROOT / "notebooks" / "guides" / "performance.md").read_text()
TRAINERS = {(result["trainer"], result["rows"]): result for result in RESULTS if "rows" in result}


@pytest.mark.parametrize("kind", ["GRPO", "HPT"])
def test_every_part_of_a_run_is_measured(kind):
    result = measure(kind, 64)
    assert 0 < result["constructor"] < result["to_first_step"]
    assert result["step"] > 0
    assert result["checkpoint"] > 0


def test_the_history_of_a_run_is_measured():
    result = history_seconds(512)
    assert result["history_rows"] == 512
    assert result["per_log_line"] > 0


def test_committed_times_and_memory_are_grpos_where_rows_are_many():
    for name in ("constructor", "to_first_step", "peak_mb"):
        assert TRAINERS["HPT", 1_000_000][name] <= 1.2 * TRAINERS["GRPO", 1_000_000][name]
    small, _, large = (result["per_log_line"] for result in RESULTS if "history_rows" in result)
    assert large <= 1.2 * small


def test_the_times_in_the_guide_are_the_committed_ones():
    for (kind, rows), result in TRAINERS.items():
        times = " | ".join(f"{result[name]:.2f}" for name in ("constructor", "to_first_step", "step", "checkpoint"))
        assert f"| {rows:,} | {kind} | {times} | {result['peak_mb']} |" in GUIDE
