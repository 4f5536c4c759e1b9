"""Push to a Hub, fail at it, pull from it: the installed client against a real server on loopback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.commands.test_cli import BASE
from tests.hub_server import TOKEN, card_errors, client_environment, serve
from tests.tiny import ROWS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub on which nothing is yet; what fails is named for it."""
    parts = {"403": 403, "409": 409, "500": 500, "drop": "drop"}
    faults = {f"me/commit-{name}": ["commit", how] for name, how in parts.items()}
    faults |= {"me/lfs-403": ["lfs", 403], "me/lfs-drop-once": ["lfs", "drop", 1], "me/run": ["commit", 403]}
    with serve(tmp_path_factory.mktemp("hub"), faults=faults) as hub:
        yield hub


def run(hub, home, *argv):
    """A process of its own, for the endpoint is read when `huggingface_hub` is imported."""
    environment = os.environ | client_environment(hub, home) | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=300)


def evaluation(model: Path) -> dict:
    """What `hpt-trl evaluate` writes, as far as the card reads it; the rest may not be spread."""
    estimate = {"value": 0.25, "low": 0.2, "high": 0.3}
    suite = {"title": "AIME24", "right": [8] * 30, "samples": 32, "average": estimate, "pass_at": {"8": estimate}}
    suite |= {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 8192}
    settings = {"model": str(model), "data": None, "dataset_config": None, "split": "test", "limit": None}
    return {"settings": settings, "suites": {"aime24": suite}}


@pytest.fixture(scope="module")
def done(hub, tiny_model, tmp_path_factory):
    """A trainer that pushed, also where the Hub refuses, and commands that did: (folder, what they told)."""
    folder = tmp_path_factory.mktemp("pushed")
    ROWS.to_json(folder / "rows.jsonl")
    names = {"model_name_or_path": tiny_model, "dataset_name": str(folder / "rows.jsonl"), "hub_token": TOKEN}
    names |= {"output_dir": str(folder / "run"), "hub_model_id": "me/run", "push_to_hub": True}
    saves = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    (folder / "config.yaml").write_text(json.dumps(BASE | names | saves))
    (folder / "run" / "eval").mkdir(parents=True)
    results = folder / "run" / "eval" / "results.json"
    results.write_text(json.dumps(evaluation(folder / "run")))
    later = results.stat().st_mtime + 600  # than the weights
    os.utime(results, (later, later))
    worker = ("-m", "tests.durability.hub_worker", str(folder / "trainer"), str(folder / "config.yaml"))
    finished = run(hub, folder / "home", *worker)
    assert finished.returncode == 0, finished.stderr
    return folder, json.loads(finished.stdout.splitlines()[-1])


def test_a_model_is_pushed_whole_and_while_it_trains(hub, done):
    folder, told = done
    assert told["pushes"]["me/whole"] == "pushed"
    repo = hub.folder("me/whole")
    names = {"README.md", "gate.png", "gate.parquet", "hpt_run.json", "config.json", "tokenizer.json"}
    assert {path.name for path in repo.iterdir()} >= names
    assert (repo / "model.safetensors").read_bytes() == (folder / "trainer" / "model.safetensors").read_bytes()
    assert hub.commits["me/whole"][-1] == "End of training"
    assert "Training in progress, step 1, checkpoint" in hub.commits["me/whole"]
    # Pushed after it was marked, so that a run can be resumed from it.
    assert "model.safetensors" in json.loads((repo / "last-checkpoint" / "hpt_complete.json").read_text())["files"]
    assert not list(repo.glob("checkpoint-*"))
    assert hub.strangers == []


ADVICE = {
    "me/unknown": ("responded with 401", "hf auth login"),
    "me/commit-403": ("responded with 403", "role 'write'"),
    "me/commit-409": ("responded with 409", "try again when it has finished"),
    "me/commit-500": ("responded with 500", "try again in a few minutes"),
    "me/commit-drop": ("connection failed or was interrupted", "check the network"),
    "me/lfs-403": ("Error while uploading ", "responded with 403"),
}


@pytest.mark.parametrize("repo", ADVICE)
def test_a_push_that_fails_says_so_and_what_to_do(hub, done, repo):
    folder, text = done[0] / "trainer", done[1]["pushes"][repo]
    assert all(part in text for part in ADVICE[repo]), text
    assert "\n" not in text
    assert "hf_" not in text
    if repo != "me/unknown":
        assert f"the model is in '{folder}', and `hpt-trl push {folder} --repo_id {repo}` pushes it" in text
    assert not list(hub.folder(repo).glob("*"))  # a commit is whole or not at all


def test_an_upload_that_broke_off_once_is_taken_up(hub, done):
    folder, told = done
    assert told["pushes"]["me/lfs-drop-once"] == "pushed"
    found = hub.folder("me/lfs-drop-once") / "model.safetensors"
    assert found.read_bytes() == (folder / "trainer" / "model.safetensors").read_bytes()


def test_failed_pushes_leave_the_run_going_and_the_model_safe(done):
    folder, told = done[0] / "run", done[1]["train"]
    assert "The push of step 1 to 'me/run' failed. The Hub responded with 403" in told["stderr"]
    last = told["stderr"].strip().splitlines()[-1]
    assert told["code"] == 1
    assert last.startswith("hpt-trl train: error: The push to 'me/run' failed. The Hub responded with 403")
    assert f"`hpt-trl push {folder} --repo_id me/run`" in last
    assert "Traceback" not in told["stderr"]
    assert load_file(folder / "model.safetensors")
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 2


def test_the_command_that_the_error_names_pushes_model_and_evaluation(hub, done):
    folder, told = done[0] / "run", done[1]["push"]
    assert told["code"] == 0, told["stderr"]
    repo = hub.folder("me/later")
    assert (repo / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not (repo / "eval").exists()
    text = (repo / "README.md").read_text()
    assert card_errors(text) == []
    result = ModelCard(text).data.eval_results[0]
    assert (result.dataset_type, result.metric_name, result.metric_value) == ("HuggingFaceH4/aime_2024", "avg@32", 25.0)
    assert "| AIME24 (30 problems) | pass@8 | 25.0% | 20.0% to 30.0% |" in text
    assert "hpt-trl train --config" in text


def test_no_token_is_pushed(hub, done):
    files = [path for path in hub.root.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_the_card_s_own_code_loads_the_model_bit_by_bit(hub, done, tmp_path):
    local = done[0] / "run" / "model.safetensors"
    code = re.search(r"```python\n(.*?)\n```", (hub.folder("me/later") / "README.md").read_text(), re.DOTALL)[1]
    code += (
        "\nfrom safetensors.torch import load_file"
        f"\nlocal = load_file({str(local)!r})"
        "\nloaded = generator.model.state_dict()"
        "\nassert all(bool((loaded[name] == local[name]).all()) for name in local)"
        "\nprint('equal', len(local))"
    )
    finished = run(hub, tmp_path / "fresh", "-c", code)
    assert finished.returncode == 0, finished.stderr
    assert re.fullmatch(r"equal \d\d", finished.stdout.splitlines()[-1])
    assert hub.strangers == []
