"""`hpt-trl prepare` with a Hub id, downloaded and streamed, and benchmarks from the Hub, on a local test server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from hpt_trl.data.benchmarks import SUITES
from tests.data import samples
from tests.data.test_preparation import BENCHMARK
from tests.hub_server import client_environment, serve

ROOT = Path(__file__).parents[2]
DATA = "Elliott/Openr1-Math-46k-8192"


def put(folder, name, rows, file="data/train-00000-of-00001.parquet"):
    path = folder / "datasets" / name / file
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def benchmark_row(name):
    problem = BENCHMARK if name == "math500" else f"This is the one and only problem that the suite {name} has, is it?"
    if name == "arc_challenge":
        return {"question": problem, "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": "A"}
    if name == "olympiadbench":
        return {"question": problem, "final_answer": ["1"], "solution": ["1"]}
    if name == "gsm8k":
        return {"question": problem, "answer": "#### 1"}
    return {"problem": problem, "question": problem, "answer": "1"}


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "hub"
    chat = [{"role": "user", "content": BENCHMARK}]
    put(folder, DATA, [*samples.LUFFY, samples.LUFFY[0] | {"prompt": chat}])
    for name, suite in SUITES.items():
        file = f"{suite.split}-00000-of-00001.parquet"
        put(folder, suite.hub_id, [benchmark_row(name)], f"{suite.config}/{file}" if suite.config else f"data/{file}")
        if suite.config:
            config = (
                f"- config_name: {suite.config}\n  data_files:\n  - {{split: {suite.split}, path: {suite.config}/*}}"
            )
            (folder / "datasets" / suite.hub_id / "README.md").write_text(f"---\nconfigs:\n{config}\n---\n")
    with serve(folder, gated=frozenset({SUITES["gpqa"].hub_id})) as hub:
        yield hub


def prepare(tmp_path, hub, *flags):
    """Run the command in a new process, because `datasets` reads the endpoint when it is imported."""
    environment = os.environ | client_environment(hub, tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "hpt_trl.commands.cli",
        "prepare",
        DATA,
        "--output",
        str(tmp_path / "out.jsonl"),
        *flags,
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("flags", [[], ["--streaming"]], ids=["download", "streaming"])
def test_a_hub_dataset_is_compared_with_the_benchmarks_on_the_hub(hub, tmp_path, flags):
    done = prepare(tmp_path, hub, *flags)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [{"prompt": samples.LUFFY[0]["prompt"], "demonstration": samples.THOUGHT, "solution": "42"}]
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert report["decontamination"]["refused_by_benchmark"] == {"math500": 1}
    assert report["decontamination"]["problems_by_benchmark"] == {name: 1 for name in SUITES if name != "gpqa"}
    assert report["decontamination"]["not_compared_with"].keys() == {"gpqa"}


def test_a_missing_hub_dataset_is_an_error_in_one_paragraph(tmp_path):
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub") as hub:
        done = prepare(tmp_path, hub, "--decontaminate", "false")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert lines[-1].startswith("hpt-trl prepare: error: ")
    assert "Elliott/Openr1-Math-46k-8192" in lines[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_without_a_network_nothing_is_retried(tmp_path):
    # Nothing listens on the discard port.
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_OFFLINE", None)
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"prompt": "6*7?", "demonstration": "\\boxed{42}", "solution": "42"}))
    command = [sys.executable, "-m", "hpt_trl.commands.cli", "prepare", source, "--output", tmp_path / "out.jsonl"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "The benchmark 'aime24' could not be loaded for decontamination" in done.stderr
    assert "--decontaminate false" in done.stderr
    assert "etry" not in done.stderr
