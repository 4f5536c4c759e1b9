"""The hosted workflows: valid, without secrets, and running what `make` runs here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in FOLDER.glob("*.yml")}
STEPS = [step for workflow in WORKFLOWS.values() for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", sorted(FOLDER.glob("*.yml"))), ("citation-file-format", [ROOT / "CITATION.cff"])],
)
def test_files_follow_their_schemas(schema, files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_security_linter_has_no_finding():
    command = [Path(sys.executable).with_name("zizmor"), "--offline", FOLDER]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_secret_is_used_and_only_publishing_gets_an_identity():
    assert "secrets." not in "".join(path.read_text() for path in FOLDER.glob("*.yml"))
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}
        rights = {job: each["permissions"] for job, each in workflow["jobs"].items() if "permissions" in each}
        assert rights == ({"publish": {"id-token": "write"}} if name == "release" else {})


def test_actions_are_pinned_to_commits():
    uses = [step["uses"] for step in STEPS if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in uses)


def test_workflows_run_targets_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = {word for step in STEPS for word in re.findall(r"make ([\w-]+)$", step.get("run", ""))}
    matrix = WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["target"]
    assert {*ran, *matrix} <= targets
    assert {"test", "test-distributed", "dist"} <= set(matrix)


def test_a_release_is_what_the_tag_says():
    steps = WORKFLOWS["release"]["jobs"]["build"]["steps"]
    (check,) = [step for step in steps if "hatchling version" in step.get("run", "")]
    assert "GITHUB_REF_NAME" in check["run"]
    assert WORKFLOWS["release"]["jobs"]["publish"]["needs"] == "build"
