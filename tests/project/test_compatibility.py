"""The guide of what works with the ecosystem names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "notebooks" / "guides" / "compatibility.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", GUIDE)))


@pytest.mark.parametrize("name", NAMED)
def test_named_tests_exist(name):
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert tests
    assert not function or function in tests


def test_every_row_says_why():
    rows = [line.strip("|").split(" | ") for line in GUIDE.splitlines() if line.startswith("| ")]
    options = [row for row in rows if row[0].strip() != "option" and not row[0].startswith(" ---")]
    assert len(options) > 25
    for row in options:
        assert len(row) == 3, row
        assert row[2].strip() or "limitations" in row[1], row
    assert len(NAMED) > 15
