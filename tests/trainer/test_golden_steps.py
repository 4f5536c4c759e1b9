"""Three steps of every preset and gate end where they did at the commit that recorded them."""

import json
from pathlib import Path

import pytest

from tests.trainer.golden_steps import CASES, record

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "golden_steps.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_parameters_after_three_steps_are_the_recorded_ones(tiny_model, tmp_path, case):
    # Kernels of another CPU round differently, and bf16 more so; `golden_steps --compare` compares bits.
    tolerance = 2e-2 if case == "bf16" else 1e-4
    assert record(tiny_model, tmp_path, case)["projections"] == pytest.approx(
        GOLDEN[case]["projections"], rel=tolerance, abs=tolerance
    )
