"""Notebooks are committed without outputs, and begin alike. `make test` executes them (nbmake)."""

from pathlib import Path

import nbformat
import pytest

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
