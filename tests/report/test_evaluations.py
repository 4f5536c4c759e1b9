"""The results of `hpt-trl evaluate` in a run's folder, on the page of the run."""

import json
import os

import pandas as pd
import pytest

from hpt_trl.report.page import render
from hpt_trl.report.run_folder import Run


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    return Run(folder, pd.DataFrame(), pd.DataFrame())


def evaluate_into(run, name, model="runs/mine"):
    """Write what `hpt-trl evaluate --output FOLDER` writes, as far as the page reads it."""
    suite = {
        "title": "my problems", "average": {"value": 0.25, "low": 0.125, "high": 0.5}, "samples": 1, "pass_at": {},
        "right": [1, 0, 0, 0], "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 32,
    }  # fmt: skip
    content = {"settings": {"model": model, "split": "test", "limit": None}, "suites": {"data_mine": suite}}
    path = run.folder / name / "results.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    return path


def test_an_evaluation_is_shown_with_its_interval(run):
    evaluate_into(run, "evaluation")
    page = render([run])
    assert "avg@1 on my problems (4 problems; temperature 1, top-p 1, at most 32 tokens)" in page
    assert "25.0% (12.5% to 50.0%)" in page
    assert page.index("Evaluations") < page.index("Settings")


def test_an_evaluation_of_earlier_weights_is_not_shown(run):
    path = evaluate_into(run, "evaluation")
    os.utime(path, (0, 0))
    assert "Evaluations" not in render([run])


def test_the_evaluation_of_another_model_is_named_and_not_shown(run):
    evaluate_into(run, "evaluation", model="runs/other")
    page = render([run])
    assert "evaluation/results.json" in page
    assert "not shown:" in page
    assert "25.0%" not in page
