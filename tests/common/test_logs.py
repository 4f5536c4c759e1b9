"""Log records and lines on the terminal show no secret, whatever part of them holds it."""

import ast
import os

import pytest
from accelerate import PartialState

from hpt_trl.common.errors import RunError
from hpt_trl.common.logs import get_logger, plain_logger, say
from tests.project.test_layout import MODULES

SECRET = 'correct "horse" & battery'


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", SECRET)


@pytest.mark.parametrize("logger", [get_logger("hpt_trl.a"), plain_logger("hpt_trl.b")], ids=["run", "worker"])
def test_a_record_is_masked_in_its_message_arguments_and_traceback(logger, caplog):
    PartialState()
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.error("a %s, b %d, http://user:pw@host", SECRET, 5, exc_info=True)
    logger.warning(f"no arguments, 100 %: {SECRET}")
    assert "a ***, b 5, http://***@host\nTraceback" in caplog.text
    assert "no arguments, 100 %: ***" in caplog.text
    assert "horse" not in caplog.text


def test_a_line_is_masked_and_has_any_character(capsys):
    say(f"saved to {SECRET}/{os.fsdecode(bytes([0xE9]))}")
    say(SECRET, is_error=True)
    assert tuple(capsys.readouterr()) == ("saved to ***/\\udce9\n", "***\n")


def test_an_error_that_ends_a_run_is_masked():
    assert str(RunError(f"'mine' raised KeyError: {SECRET}")) == "'mine' raised KeyError: ***"


def test_every_logger_of_the_package_masks():
    """Those of other packages are not ours; the worker of reward functions sends its records to a process of ours."""
    for name, path in MODULES.items():
        if name in ("common.logs", "verifier.function_worker", "verifier.function_process"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        own = {ast.unparse(call) for call in calls if ast.unparse(call.func).endswith("getLogger")}
        assert own <= {"logging.getLogger('bitsandbytes.backends.cpu.ops')"}, name
        assert "from accelerate.logging" not in path.read_text(), name
