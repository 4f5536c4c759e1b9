"""The numbers in the README and the guides are those of the committed results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "notebooks" / "results"
README = (ROOT / "README.md").read_text()
ALGORITHMS, SMOLLM2 = ((ROOT / "notebooks" / "guides" / f"{name}.md").read_text() for name in ("algorithms", "smollm2"))


def percent(share: float) -> str:
    return f"{share:.1%}"


def test_the_quickstart_table():
    before, after = json.loads((RESULTS / "quickstart" / "quickstart.json").read_text()).values()
    for score in (before, after):
        interval = f"{percent(score['low'])} to {percent(score['high'])}"
        assert f"| {score['problems']} | {percent(score['accuracy'])} | {interval} |" in README
    assert after["accuracy"] > before["accuracy"] + 0.15
    assert after["low"] > before["high"]


def test_the_python_examples_run():
    examples = re.findall(r"```python\n(.*?)```", README + ALGORITHMS, flags=re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]


def test_the_real_run():
    folder = RESULTS / "smollm2_135m_gsm8k"
    history = pd.read_parquet(folder / "gate.parquet")
    steps = [entry for entry in json.loads((folder / "log.json").read_text()) if "loss" in entry]
    assert len(steps) == history["step"].nunique() >= 40
    assert f"{(history['solve_rate'] > 0).sum()} of {len(history)} prompts" in SMOLLM2
    for name in ("before", "after"):
        score = json.loads((folder / f"{name}.json").read_text())
        assert score["problems"] == 200
        interval = f"{percent(score['low'])} to {percent(score['high'])}"
        assert f"| {score['problems']} | {percent(score['accuracy'])} | {interval} |" in SMOLLM2
        right = [verdict for row in score["verdicts"] for verdict in row]
        assert sum(right) / len(right) == score["accuracy"]


def test_the_share_of_boxed_answers():
    for name in ("before", "after"):
        rows = json.loads((RESULTS / "smollm2_135m_gsm8k" / f"{name}.json").read_text())["completions"]
        texts = [text for row in rows for text in row]
        boxed = sum("\\boxed" in text for text in texts) / len(texts)
        assert f"| {percent(boxed)} | {sum(map(len, texts)) / len(texts):.0f} |" in SMOLLM2
