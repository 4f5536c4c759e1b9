"""The list of `make mutants` fits the code."""

from pathlib import Path

import pytest

from tests.mutants import mutate
from tests.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}: {mutation.old.strip()}")
def test_a_mutation_changes_a_line_that_is_there_once(mutation, tmp_path):
    copy = tmp_path / mutation.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / mutation.file).read_text())
    mutate(tmp_path, mutation)
    compile(copy.read_text(), mutation.file, "exec")
    files = mutation.tests.partition(" -k ")[0].split()
    assert all((ROOT / name).is_file() for name in files)
