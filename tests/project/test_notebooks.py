"""Notebooks are committed without outputs, and begin alike. `make test` executes them (nbmake)."""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from tests.project.test_packaging import REPOSITORY

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_committed(path):
    left = [cell.id for cell in code_cells(path) if cell.outputs or cell.execution_count is not None]
    assert not left, f"Cells {left} of {path.name} hold outputs: `make format` clears them, `make hooks` for good."


def test_all_install_alike():
    # One edit of all of them when the package, or its repository, has an address.
    assert len(NOTEBOOKS) > 1
    firsts = {code_cells(path)[0].source for path in NOTEBOOKS}
    assert len(firsts) == 1
    assert "%pip install" in firsts.pop()


@pytest.mark.parametrize(
    ("beside", "installed"),
    [
        (["../pyproject.toml"], ".."),
        (["hpt_trl-0.1.0-py3-none-any.whl", "hpt_trl-0.2.0-py3-none-any.whl"], "hpt_trl-0.2.0-py3-none-any.whl"),
        ([], f"git+{REPOSITORY}"),
    ],
    ids=["in a clone", "with a wheel", "uploaded alone"],
)
def test_the_first_cell_installs_what_exists(tmp_path, monkeypatch, beside, installed):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in beside:
        (folder / name).touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shell, calls = InteractiveShell(), []
    shell.register_magic_function(calls.append, "line", "pip")
    shell.run_cell(code_cells(NOTEBOOKS[0])[0].source).raise_error()
    assert calls == [f"install -q {installed}"]


def test_the_first_tutorial_ends_with_the_trained_model_in_use():
    last = code_cells(NOTEBOOKS[0])[-1].source
    assert 'pipeline("text-generation", model="runs/01_quickstart")' in last
