"""The panel in a real terminal (a pseudo-terminal, read by an emulator), and the lines printed without a terminal."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils.notebook import NotebookProgressCallback

from hpt_trl.monitoring.progress_panel import ProgressPanel, duration, printable
from hpt_trl.monitoring.samples import Sample, SampleLog
from tests.tiny import ROWS as DATA
from tests.tiny import make_trainer

ROWS, COLUMNS = 40, 90


def in_a_terminal(argv):
    """Run a command in a terminal.

    Returns:
        All final lines, scrolled off or on the screen; every screen state seen along the way; the emulator; exit code.
    """
    pyte = pytest.importorskip("pyte", reason="the terminal emulator comes with the extra [dev]")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(Path(__file__).parents[2])
        os.execvpe(sys.executable, [sys.executable, *argv], os.environ | {"TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.HistoryScreen(COLUMNS, ROWS, history=5000)
    stream = pyte.ByteStream(screen)
    screens = []
    while True:
        try:
            # When the last process has ended, Linux raises EIO and others return nothing.
            written = os.read(terminal, 65536)
        except OSError:
            break
        if not written:
            break
        stream.feed(written)
        screens.append([line.rstrip() for line in screen.display])
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    scrolled_off = ["".join(line[column].data for column in range(COLUMNS)).rstrip() for line in screen.history.top]
    return [*scrolled_off, *screens[-1]], screens, screen, code


@pytest.fixture(scope="module")
def session(tiny_model, tmp_path_factory):
    return in_a_terminal(
        ["-m", "tests.monitoring.panel_worker", tiny_model, str(tmp_path_factory.mktemp("panel") / "run")]
    )


def test_the_panel_is_at_the_bottom_and_shows_progress(session):
    _, screens, _, _ = session
    panels = [screen[-10:] for screen in screens if screen[-10].startswith("╭") and "step 4/6" in screen[-9]]
    assert panels
    panel = panels[-1]
    assert panel[-1].startswith("╰")
    assert all(line.startswith("│") and line.endswith("│") for line in panel[1:-1])
    assert re.search(r"step 4/6 .* \d+:\d\d elapsed, \d+:\d\d remaining", panel[1])
    assert re.search(r"reward \d\.\d+   solve rate \d+%   \d+% on demonstrations   [\d,]+ tokens/s", panel[2])
    assert re.search(r"\d+% rollouts, \d+% demonstrations", panel[3])
    assert re.search(r"latest sample, reward \d: \d+\+\d+\?", panel[4])


def test_no_output_of_other_writers_is_lost_or_broken(session):
    lines, _, _, _ = session
    for step in range(6):
        assert sum(f"warning at step {step}." in line for line in lines) == 1
        assert sum(line == f"printed at step {step}." for line in lines) == 1
    # A full terminal may insert the output of a third process between a line and its newline.
    written = re.findall(r"other rank, line \d\d\.", "".join(lines))
    assert written == [f"other rank, line {i:02}." for i in range(30)]
    # TRL's tables, each with an intact frame.
    titles = [i for i, line in enumerate(lines) if re.match(r"╭─+ Step \d ─+╮$", line)]
    assert len(titles) == 7  # TRL prints the last one again when the run ends
    for start in titles:
        table = lines[start : start + 5]
        assert all(line[0] in "╭│" and line[-1] in "╮│" for line in table)
        assert "Completion" in table[2]


def test_the_terminal_is_restored(session):
    lines, screens, screen, code = session
    assert code == 1  # from the run that failed
    assert screen.margins is None
    assert not screen.cursor.hidden
    # No panel is left, neither on the screen nor in the scrollback.
    assert not [line for line in lines if "rollouts" in line and "demonstrations" in line and "▒" in line]
    assert not [line for line in lines if re.match(r"│ step \d/\d", line)]
    over = lines.index("the first run is over.")
    assert [re.sub(r"\d:\d\d.*", "", line) for line in lines[:over] if line.startswith("step ")] == ["step 6/6 | "]
    assert any("the verifier broke" in line for line in lines[over:])
    # The second run had a panel too.
    assert [screen for screen in screens if "step 1/3" in screen[-9]]


def test_without_a_terminal_there_are_plain_lines(tiny_model, tmp_path, capfd):
    make_trainer(tiny_model, tmp_path, disable_tqdm=False, eval_strategy="no").train()
    output, errors = capfd.readouterr()
    lines = [line for line in output.splitlines() if line.startswith("step ")]
    number = r"[\d,.]+"
    for step, line in zip((1, 2, 3), lines):
        remaining = "" if step == 3 else r", 0:\d\d remaining"
        assert re.fullmatch(
            rf"step {step}/3 \| 0:\d\d elapsed{remaining} \| reward {number} \| solve rate \d+% \| "
            rf"\d+% on demonstrations \| {number} tokens/s",
            line,
        )
    assert re.fullmatch(r"step 3/3 \| trained in 0:\d\d", lines[3])
    assert "\x1b" not in output + errors
    assert "/3 [" not in errors  # the progress bar of transformers


def test_evaluations_are_printed(tiny_model, tmp_path, capfd):
    options = {"eval_strategy": "steps", "eval_steps": 3, "per_device_eval_batch_size": 4}
    make_trainer(
        tiny_model, tmp_path, disable_tqdm=False, trainer={"eval_dataset": DATA.select(range(4))}, **options
    ).train()
    output = capfd.readouterr().out
    assert re.search(r"^step 3/3 \| evaluation \| reward [\d.]+ \| solve rate \d+%$", output, flags=re.MULTILINE)


def test_an_evaluation_without_training_is_printed(tiny_model, tmp_path, capfd):
    options = {"per_device_eval_batch_size": 4}
    make_trainer(
        tiny_model, tmp_path, disable_tqdm=False, trainer={"eval_dataset": DATA.select(range(4))}, **options
    ).evaluate()
    assert re.search(r"^evaluation \| reward [\d.]+ \| solve rate \d+%$", capfd.readouterr().out, flags=re.MULTILINE)


def callbacks(trainer):
    return [type(callback) for callback in trainer.callback_handler.callbacks]


def test_disable_tqdm_is_respected(tiny_model, tmp_path):
    kinds = callbacks(make_trainer(tiny_model, tmp_path, disable_tqdm=True))
    assert PrinterCallback in kinds
    assert ProgressPanel not in kinds


def test_the_panel_replaces_the_progress_bar(tiny_model, tmp_path):
    kinds = callbacks(make_trainer(tiny_model, tmp_path, disable_tqdm=False))
    assert ProgressCallback not in kinds
    assert kinds.count(ProgressPanel) == 1


def test_notebooks_keep_their_table(tiny_model, tmp_path, monkeypatch):
    # The callback that transformers chooses when it is imported in a notebook.
    monkeypatch.setattr("transformers.trainer.DEFAULT_PROGRESS_CALLBACK", NotebookProgressCallback)
    kinds = callbacks(make_trainer(tiny_model, tmp_path, disable_tqdm=False))
    assert NotebookProgressCallback in kinds
    assert ProgressPanel not in kinds


def test_only_the_main_process_prints(tmp_path, capfd):
    panel, args = ProgressPanel(SampleLog()), TrainingArguments(str(tmp_path), use_cpu=True)
    state = TrainerState(global_step=1, max_steps=2, is_world_process_zero=False)
    panel.on_train_begin(args, state, TrainerControl())
    panel.on_step_end(args, state, TrainerControl())
    panel.on_log(args, state, TrainerControl(), logs={"loss": 1.0, "reward": 1.0})
    panel.on_train_end(args, state, TrainerControl())
    assert capfd.readouterr() == ("", "")


def test_control_sequences_in_model_output_do_not_reach_the_terminal():
    panel = ProgressPanel(SampleLog())
    panel.max_steps = 4
    panel.samples.latest = [Sample(0, "q [red]?", "[bold]a[/bold]\n\x1b[2Jb\r\x07c\td", {"one": 1.0})]
    shown = re.sub(r"\x1b\[[\d;]*m", "", panel.render(60))
    assert "[bold]a[/bold]" in shown
    assert "latest sample, reward 1: q [red]?" in shown
    assert " [2Jb" in shown
    assert "\x1b" not in shown
    assert not set(shown) & {"\r", "\x07", "\t"}
    assert {len(line) for line in shown.splitlines() if line} == {60}
    assert printable("a\u202eb\u200b") == "a b "  # characters that change the writing direction are removed too


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600, "1:00:00"), (97_380, "27:03:00")]
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_a_resumed_run_does_not_count_earlier_tokens(tmp_path, capfd, monkeypatch):
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("hpt_trl.monitoring.progress_panel.time", clock)
    panel, args = ProgressPanel(SampleLog()), TrainingArguments(str(tmp_path), use_cpu=True)
    state = TrainerState(global_step=10, max_steps=20, log_history=[{"step": 10, "num_tokens": 1e9}])
    panel.on_train_begin(args, state, TrainerControl())
    now[0] += 2.0
    state.global_step = 11
    panel.on_step_end(args, state, TrainerControl())
    panel.on_log(args, state, TrainerControl(), logs={"loss": 1.0, "num_tokens": 1e9 + 200})
    # 200 tokens in the 2 seconds since the start; nine more steps.
    assert panel.tokens_per_second == 100
    assert "step 11/20" in capfd.readouterr().out
