"""The documentation: examples in docstrings run, the site builds without a warning and fetches nothing."""

import doctest
import importlib
import logging
import re
from pathlib import Path

import pytest

from tests.test_house import MODULES, ORDER

ROOT = Path(__file__).parents[1]
API = ROOT / "notebooks" / "guides" / "api"
# What no user calls: the site has no page of these.
INTERNAL = {
    "answers", "answers.terms", "answers.units", "benchmark_problems", "cli", "console", "gguf_model", "grader_worker",
    "comparison", "journal", "masking", "miniature", "versions", "writing",
}  # fmt: skip
# What people call first shows how.
WITH_EXAMPLES = (
    "gate.solve_rates", "gate.switch_gate", "gate.linear_gate", "gate.table_gate", "gate.gate_weights",
    "estimator.Tokens", "estimator.Estimator", "estimator.Algorithm", "estimator.register", "estimator.clip",
    "estimator.group_advantages", "rewards.accuracy_reward", "rewards.format_reward", "rewards.judge",
    "answers.equality.judge", "scores.pass_at_k", "scores.wilson_interval", "batching.deal", "batching.cut_to_budget",
    "data.prepare_rows", "config.HPTConfig", "trainer.HPTTrainer",
)  # fmt: skip


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
    assert sorted([*listed, *INTERNAL]) == sorted(ORDER)


@pytest.mark.filterwarnings("ignore")  # Sphinx's own news for its next release
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    build = pytest.importorskip("sphinx.cmd.build", reason="Sphinx comes with hpt-trl[docs]")
    options = ["-c", str(API.parent), "-d", str(tmp_path / "doctrees"), "-E", "-W", "--keep-going", "-q"]
    assert build.build_main([*options, str(ROOT), str(tmp_path / "site")]) == 0
    pages = {page: page.read_text() for page in (tmp_path / "site").rglob("*.html")}
    assert tmp_path / "site" / "notebooks" / "guides" / "api" / "hpt_trl.trainer.html" in pages
    for page, text in pages.items():
        fetched = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]*)", text)
        assert not fetched, (page, fetched)
