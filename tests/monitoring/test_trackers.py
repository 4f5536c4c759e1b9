"""Names under which metrics are charted, and what the trackers actually store (`make test-trackers` installs them)."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hpt_trl import HPTConfig
from tests.hub_server import client_environment, serve
from tests.tiny import ROWS, make_trainer

ROOT = Path(__file__).parents[2]
# Trackers group metrics by the part of the name before the last "/". HPT's metrics have their own groups.
GROUPS = {"hpt", "demonstrations", "time"}


def metrics(trainer) -> set[str]:
    trainer.train()
    return {key for entry in trainer.state.log_history for key in entry}


def test_trl_metrics_keep_their_names_and_hpt_metrics_have_their_own_groups(tiny_model, tmp_path):
    options = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4}
    held_out = {"eval_dataset": ROWS.select(range(4))}
    trl = metrics(make_trainer(tiny_model, tmp_path / "grpo", hpt=False, trainer=held_out, **options))
    ours = metrics(make_trainer(tiny_model, tmp_path / "hpt", trainer=held_out, **options))
    assert trl <= ours
    assert len(ours - trl) > 10
    assert {name.removeprefix("eval_").split("/")[0] for name in ours - trl} == GROUPS
    # transformers turns "eval_" into "eval/" and prefixes the rest with "train/": three parts at most.
    assert max(name.count("/") for name in ours - trl) == 1
    assert {"eval_hpt/solve_rate", "hpt/solve_rate", "hpt/demonstration_share", "demonstrations/nll"} <= ours


def test_a_push_creates_no_space_unless_one_is_named(tmp_path):
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    assert HPTConfig(**options).trackio_static_space_id is False
    assert HPTConfig(**options, trackio_static_space_id="me/charts").trackio_static_space_id == "me/charts"
    assert HPTConfig(**options, trackio_static_space_id=None).trackio_static_space_id is None


@pytest.fixture(scope="module")
def tracked(tiny_model, tmp_path_factory):
    """What the trackers stored of a pushed run, the Hub it was pushed to, and the run's folder."""
    missing = [name for name in ("trackio", "tensorboard", "wandb") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: `make test-trackers`")
    folder = tmp_path_factory.mktemp("tracked")
    with serve(folder / "hub") as hub:
        variables = {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_MODE": "offline", "WANDB_DIR": str(folder)}
        environment = os.environ | client_environment(hub, folder / "home") | variables | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.monitoring.tracker_worker", tiny_model, str(folder / "run")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout.splitlines()[-1]), hub, (folder / "run")


def test_tensorboard_stores_what_was_logged(tracked):
    stored, _, _ = tracked
    scalars = stored["tensorboard"]["scalars"]
    for name in ("hpt/solve_rate", "hpt/demonstration_share", "demonstrations/missing", "reward"):
        logged = [[entry["step"], entry[name]] for entry in stored["log"] if name in entry]
        assert scalars[f"train/{name}"] == [[step, pytest.approx(value)] for step, value in logged]
    assert [step for step, _ in scalars["eval/hpt/solve_rate"]] == [2]
    assert '"gate": "linear"' in stored["tensorboard"]["config"]


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_the_config_shows_the_chosen_options(tracked, tracker):
    config = tracked[0][tracker]["config"]
    chosen = {"gate": "linear", "sft_weight": 0.3, "algorithm": "hpt", "sft_normalization": "prompt"}
    assert {name: config[name] for name in chosen} == chosen


def test_wandb_charts_by_optimizer_step(tracked):
    names = tracked[0]["wandb"]["metrics"]
    assert {"train/hpt/solve_rate", "eval/hpt/solve_rate", "train/global_step"} <= set(names)


def test_the_push_only_reaches_the_model_repository(tracked):
    _, hub, folder = tracked
    assert hub.commits.keys() == {"me/tracked"}
    assert hub.requests.count("POST /api/repos/create") == 1
    assert set(hub.strangers) <= {"GET /api/whoami-v2"}  # trackio looks up the owner of the token
    assert "hf.space" not in (folder / "README.md").read_text()
