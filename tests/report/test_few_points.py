"""A run with few log entries: charts show them as bars, or every step of the gate history; the page says why."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hpt_trl.report.charts import PANELS
from hpt_trl.report.diagnosis import Kind, diagnose
from hpt_trl.report.gate_maps import by_step
from hpt_trl.report.page import render
from hpt_trl.report.run_folder import read_run
from tests.tiny import make_trainer

BY_NAME = {panel.name: panel for panel in PANELS}


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """Six steps, logged every three."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    make_trainer(tiny_model, folder, max_steps=6, logging_steps=3).train()
    return read_run(folder)


def drawn(name, run):
    axes = Figure().add_subplot()
    assert BY_NAME[name].draw(axes, run)
    return axes


def test_the_page_says_how_to_get_more_points(run):
    (finding,) = diagnose(run)
    assert finding.kind == Kind.TOO_SHORT
    assert finding.text == "Only 2 steps logged; at least 5 are needed for a diagnosis."
    assert finding.advice == "For a point per step, set logging_steps, which was 3, to 1."
    assert finding.advice in render([run])
    every_step = dataclasses.replace(run, log=run.log.set_axis([4, 5]).rename_axis("step"), gate=None)
    assert "logging_steps" in diagnose(every_step)[0].advice  # those before are missing
    short = dataclasses.replace(run, log=run.log.set_axis([1, 2]).rename_axis("step"), gate=None)
    assert diagnose(short)[0].advice == ""


@pytest.mark.parametrize("entries", [1, 2])
def test_few_values_are_bars_over_the_steps_that_they_are_means_of(run, entries):
    few = dataclasses.replace(run, log=run.log.head(entries), gate=None)
    axes = drawn("groups", few)
    none, every = (few.series(f"hpt/{name}_solved").tolist() for name in ("none", "all"))
    bars = [(bar.get_x(), bar.get_x() + bar.get_width() / 0.97, bar.get_height()) for bar in axes.patches]
    some = [1 - a - b for a, b in zip(none, every)]
    steps = [(0.5, 3.5), (3.5, 6.5)][:entries]
    expected = [(*ends, value) for values in (none, some, every) for ends, value in zip(steps, values)]
    assert np.array(bars) == pytest.approx(np.array(expected))
    assert drawn("time", few).patches
    assert not axes.collections  # areas


def test_the_gate_history_has_a_value_per_step(run):
    rates = by_step(run, "hpt/solve_rate")
    assert list(rates.index) == [1, 2, 3, 4, 5, 6]
    assert rates.iloc[:3].mean() == pytest.approx(run.series("hpt/solve_rate").iloc[0])
    for name in ("hpt/demonstration_share", "hpt/none_solved", "hpt/all_solved"):
        assert by_step(run, name).iloc[3:].mean() == pytest.approx(run.series(name).iloc[1]), name
    assert len(by_step(run, "entropy")) == 2
    assert len(drawn("reward", run).lines[0].get_xdata()) == 6
    assert len(drawn("groups", run).collections) == 3
    assert "<td>5</td>" in render([run]).replace(' class="number"', "")


def test_many_log_entries_are_not_replaced(run):
    log = pd.DataFrame({"hpt/solve_rate": [0.5] * 20}, index=pd.Index(range(1, 21), name="step"))
    gate = pd.concat([run.gate.assign(step=run.gate["step"] + 6 * i) for i in range(5)])
    many = dataclasses.replace(run, log=log, gate=gate)
    assert by_step(many, "hpt/solve_rate").equals(log["hpt/solve_rate"])
