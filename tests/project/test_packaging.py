"""The wheel and the sdist: reproducible, complete, and usable from an empty folder."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from hpt_trl import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REPOSITORY = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
BUILD = (
    "import sys, hatchling.build as build;"
    "build.build_wheel(sys.argv[1]); build.build_sdist(sys.argv[1]); build.build_editable(sys.argv[2])"
)
# Run from the wheel: parses every config by its short name, as the command that it is for.
LOAD = """
from trl import ModelConfig
from hpt_trl.commands.demonstrate import DemonstrateArguments
from hpt_trl.commands.train import HPTScriptArguments
from hpt_trl.common.command_line import parse
from hpt_trl.common.configs import PREFIX, config_folder, config_names, config_path, title
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.config import HPTConfig
from accelerate.commands.config.config_args import load_config_from_file

for name in config_names():
    flags = ["--config", PREFIX + name]
    text = config_path(name).read_text()
    if name.startswith("accelerate/"):
        load_config_from_file(str(config_path(name)))
    elif "hpt-trl compare" in text:
        parse((CompareArguments,), flags, "test")
    elif "hpt-trl demonstrate --config" in text:
        parse((DemonstrateArguments,), flags, "test")
    elif "comparison.language_model" in text:
        parse((LanguageModelArguments,), flags, "test")
    else:
        parse((HPTScriptArguments, HPTConfig, ModelConfig), [*flags, "--use_cpu", "true"], "test")
print(config_folder())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with a wheel and an sdist, and one with the wheel of an editable install."""
    folder, editable = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("editable")
    subprocess.run([sys.executable, "-c", BUILD, folder, editable], cwd=ROOT, check=True, capture_output=True)
    return folder, editable


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def run_in(folder: Path, *command: str, path: Path) -> subprocess.CompletedProcess:
    """Run Python in a folder, with a path that stands for site-packages before the installed packages."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_builds_are_identical(built, tmp_path):
    subprocess.run([sys.executable, "-c", BUILD, tmp_path / "a", tmp_path / "b"], cwd=ROOT, check=True)
    for path in built[0].iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name


def test_twine_accepts_both(built):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built[0].iterdir()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_metadata_is_complete_and_links_are_absolute(built):
    with zipfile.ZipFile(only(built[0], "*.whl")) as wheel:
        metadata = Parser().parsestr(wheel.read(f"hpt_trl-{__version__}.dist-info/METADATA").decode())
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL"))
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= set(urls)
    assert all(url.startswith(REPOSITORY) for name, url in urls.items() if name != "Paper")
    assert metadata["Author"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert len(metadata.get_all("Classifier")) >= 8
    targets = re.findall(r"\]\(([^)\s]+)\)", metadata.get_payload())
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    ours = [target for target in targets if target.startswith(REPOSITORY)]
    assert all(f"/v{__version__}/" in target for target in ours)
    for target in ours:  # each leads to a file of this repository
        relative = target.partition(f"/v{__version__}/")[2].partition("#")[0]
        assert (ROOT / relative).exists(), target


def test_the_wheel_holds_the_package_and_its_configs_only(built):
    with zipfile.ZipFile(only(built[0], "*.whl")) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {"hpt_trl", f"hpt_trl-{__version__}.dist-info"}
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"hpt_trl/{name}" for name in configs} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_a_wheel_is_built_from_the_sdist_alone(built, tmp_path):
    with tarfile.open(only(built[0], "*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    code = "import sys, hatchling.build as build; build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=only(tmp_path, "hpt_trl-*"), check=True)
    assert only(tmp_path, "*.whl").read_bytes() == only(built[0], "*.whl").read_bytes()


def test_every_config_loads_from_the_wheel_in_an_empty_folder(built, tmp_path):
    with zipfile.ZipFile(only(built[0], "*.whl")) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    done = run_in(tmp_path / "empty", "-c", LOAD, path=tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(str(tmp_path / "site" / "hpt_trl" / "configs"))


def test_a_clone_beside_the_script_does_not_hide_an_editable_install(built, tmp_path):
    with zipfile.ZipFile(only(built[1], "*.whl")) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "hpt_trl").mkdir()  # what a clone is to a script beside it: a folder without __init__.py
    code = f"import site; site.addsitedir({str(tmp_path / 'site')!r}); import hpt_trl; print(hpt_trl.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(ROOT / "hpt_trl" / "__init__.py"), done.stderr


def test_the_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["repository-code"] == REPOSITORY
    assert {"message", "title", "authors"} <= set(citation)


def test_every_address_to_install_from_is_the_one_of_pyproject():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    named = {}
    for name in listed:
        if name.endswith((".md", ".py", ".ipynb", ".cff", ".toml")):
            named |= dict.fromkeys(re.findall(r"git\+https://[\w.-]+/[\w./-]+", (ROOT / name).read_text()), name)
    assert set(named) == {f"git+{REPOSITORY}"}, named


def test_every_link_to_a_hosted_notebook_leads_to_one_of_ours():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    links = {link for name in listed for link in re.findall(r"https://colab\.[^\s)\]]+", (ROOT / name).read_text())}
    assert links
    for link in links:
        page = f"https://colab.research.google.com/github/{REPOSITORY.removeprefix('https://github.com/')}/blob/main/"
        assert link.startswith(page), link
        assert (ROOT / link.removeprefix(page)).is_file(), link


def test_the_quickstart_installs_the_package_without_the_developers_tools(tmp_path):
    commands = ["make", "--no-print-directory", "--dry-run", "quickstart", f"VENV={tmp_path / 'venv'}"]
    printed = subprocess.run(commands, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-e .\n" in printed
    assert "[dev" not in printed
    assert printed.strip().endswith("hpt-trl quickstart")
    commands[3] = "install"
    assert "-e '.[dev,docs]'" in subprocess.run(commands, cwd=ROOT, capture_output=True, text=True, check=True).stdout
