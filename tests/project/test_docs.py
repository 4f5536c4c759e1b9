"""The documentation: examples in docstrings run, the site builds without a warning and fetches nothing."""

import doctest
import importlib
import logging
import re
from pathlib import Path

import pytest

from tests.project.test_layout import MODULES, PUBLIC

ROOT = Path(__file__).parents[2]
API = ROOT / "notebooks" / "guides" / "api"
# What no user calls: the site has no page of these.
INTERNAL = {
    "commands.cli",
    "commands.early_checks",
    "common.command_line",
    "common.configs",
    "common.escaping",
    "common.help_text",
    "common.imports",
    "common.logs",
    "common.masking",
    "common.versions",
    "data.decontamination_problems",
    "data.gguf_model",
    "data.row_writer",
    "evaluation.journal",
    "verifier.answers.conditions",
    "verifier.answers.names",
    "verifier.answers.numbers",
    "verifier.answers.terms",
    "verifier.answers.units",
    "verifier.answers.values",
    "verifier.function_worker",
    "verifier.grader_worker",
    "verifier.processes",
}
# What people call first shows how.
WITH_EXAMPLES = [
    "algorithm.gate.solve_rates",
    "algorithm.gate.switch_gate",
    "algorithm.gate.linear_gate",
    "algorithm.gate.table_gate",
    "algorithm.gate.gate_weights",
    "algorithm.estimator.Tokens",
    "algorithm.estimator.Estimator",
    "algorithm.presets.Algorithm",
    "algorithm.presets.register",
    "algorithm.estimator.clip",
    "algorithm.estimator.group_advantages",
    "verifier.verdicts.accuracy_reward",
    "verifier.verdicts.format_reward",
    "verifier.verdicts.judge",
    "verifier.answers.equality.judge",
    "evaluation.scores.pass_at_k",
    "evaluation.scores.wilson_interval",
    "trainer.row_packing.assign_rows",
    "trainer.row_packing.cut_to_budget",
    "data.preparation.prepare_rows",
    "config.HPTConfig",
    "trainer.hpt.HPTTrainer",
]


def examples_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(f"hpt_trl.{name}")
    return [test for test in doctest.DocTestFinder().find(module, f"hpt_trl.{name}") if test.examples]


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if ">>> " in path.read_text()])
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logging.disable(logging.WARNING)  # DeepSpeed's go to standard output, where the examples' results are
    try:
        runner = doctest.DocTestRunner()
        told: list[str] = []
        for test in examples_of(name):
            runner.run(test, out=told.append)
    finally:
        logging.disable(logging.NOTSET)
    assert not told, "".join(told)
    assert runner.summarize(verbose=False).attempted > 0


@pytest.mark.parametrize("path", WITH_EXAMPLES)
def test_what_people_call_first_shows_how(path):
    name = path.rpartition(".")[0]
    assert f"hpt_trl.{path}" in {test.name for test in examples_of(name)}


def test_every_module_is_on_a_page_or_internal():
    written = [page.read_text() for page in API.glob("*.rst") if not page.name.startswith("hpt_trl.")]
    listed = re.findall(r"^   hpt_trl\.(\S+)$", "\n".join(written), re.MULTILINE)
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted([*listed, *INTERNAL]) == sorted(MODULES.keys() - packages - PUBLIC)


@pytest.mark.filterwarnings("ignore")  # Sphinx's own news for its next release
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    build = pytest.importorskip("sphinx.cmd.build", reason="Sphinx comes with hpt-trl[docs]")
    options = ["-c", str(API.parent), "-d", str(tmp_path / "doctrees"), "-E", "-W", "--keep-going", "-q"]
    assert build.build_main([*options, str(ROOT), str(tmp_path / "site")]) == 0
    pages = {page: page.read_text() for page in (tmp_path / "site").rglob("*.html")}
    assert tmp_path / "site" / "notebooks" / "guides" / "api" / "hpt_trl.trainer.hpt.html" in pages
    for page, text in pages.items():
        fetched = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]*)", text)
        assert not fetched, (page, fetched)
