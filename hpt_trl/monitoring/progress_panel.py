"""Progress of a training run: a panel at the bottom of the terminal, or plain lines if there is no terminal."""

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from hpt_trl.common.masking import mask_tokens
from hpt_trl.monitoring.samples import Sample, SampleLog
from hpt_trl.monitoring.terminal import PinnedLines, supports_panels

_SAMPLE_LINES = 4
_HEIGHT = 6 + _SAMPLE_LINES
# The remaining time is extrapolated from the durations of this many recent steps.
_RECENT_STEPS = 50
# Distinguishable by color-blind readers, and by their hatching without colors.
_ROLLOUTS, _DEMONSTRATIONS = ("blue", "█"), ("yellow", "▒")
# Metrics of the summary, in its order.
_SUMMARY = {
    "reward": "reward {:.3f}",
    "hpt/solve_rate": "solve rate {:.0%}",
    "hpt/demonstration_share": "{:.0%} on demonstrations",
}


def show_progress(trainer: Trainer, samples: SampleLog) -> "ProgressPanel":
    """Replace the progress bar of transformers with the panel; do nothing without one (`disable_tqdm`, notebooks).

    Args:
        trainer: trainer whose callbacks may include a `ProgressCallback`.
        samples: samples of the last generation.

    Returns:
        The panel, as a context manager that restores the terminal on exit, also after an error.
    """
    panel = ProgressPanel(samples)
    # Compare the exact type: notebooks use another callback, and a subclass is the user's choice.
    bars = [callback for callback in trainer.callback_handler.callbacks if type(callback) is ProgressCallback]
    for bar in bars:
        trainer.remove_callback(bar)
    if bars:
        trainer.add_callback(panel)
    return panel


def duration(seconds: float) -> str:
    """Format a duration as 0:07, 12:30 or 27:03:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    """Mask secrets, and replace characters that could move the terminal's cursor or change its colors by spaces."""
    return "".join(character if character.isprintable() else " " for character in mask_tokens(text))


class ProgressPanel(TrainerCallback):
    """
    Shows the step, elapsed and remaining time, tokens per second, reward, solve rate, the share of prompts trained on
    demonstrations, and a sample.

    Active on the main process only. If stdout and stderr are a terminal, it is a panel that is redrawn every second;
    otherwise one line is printed to stdout per log entry.

    Args:
        samples: samples of the last generation.
    """

    def __init__(self, samples: SampleLog) -> None:
        self.samples = samples
        self._lines: PinnedLines | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reset(0, 0)

    def _reset(self, step: int, max_steps: int) -> None:
        self.title = ""
        self.step = step
        self.max_steps = max_steps
        self.activity = ""
        self.log: dict[str, Any] = {}
        self.tokens_per_second: float | None = None
        self._evaluated_batches = 0
        self._start_time = time.monotonic()
        self._step_ends = deque([self._start_time], maxlen=_RECENT_STEPS + 1)
        self._token_count: tuple[float, float] | None = None  # (time of the count, number of tokens)

    def __enter__(self) -> "ProgressPanel":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self._close()
        self._reset(state.global_step, state.max_steps)
        self.title = str(args.output_dir)
        counts = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        if counts or not state.global_step:
            self._token_count = (self._start_time, counts[-1] if counts else 0.0)
        if supports_panels(sys.stderr, sys.stdout):
            self._lines = PinnedLines(sys.stderr, _HEIGHT)
            self._closed = threading.Event()
            threading.Thread(target=self._redraw_every_second, args=(self._closed,), daemon=True).start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step
        self._step_ends.append(time.monotonic())

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        batches = kwargs.get("eval_dataloader")
        self._evaluated_batches += 1
        total = f"/{len(batches)}" if has_length(batches) else ""
        self.activity = f"evaluating batch {self._evaluated_batches}{total}"

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.activity, self._evaluated_batches = "", 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        self.step = state.global_step
        if "loss" in logs:
            self.log = dict(logs)
            self._update_speed(logs.get("num_tokens"))
        if self._lines is None:
            self._print(logs)
        else:
            self._draw()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        had_panel = self._lines is not None
        self._close()
        if had_panel:
            self._print(self.log)

    def _print(self, logs: Mapping[str, Any]) -> None:
        # `trainer.evaluate()` without training belongs to no step.
        step = [f"step {self.step}/{self.max_steps}"] if self.max_steps else []
        print(" | ".join([*step, *self._summary(logs)]), flush=True)

    def _update_speed(self, tokens: float | None) -> None:
        now = time.monotonic()
        if tokens is None:
            return
        if self._token_count is not None:
            last_time, last_tokens = self._token_count
            if now > last_time:
                self.tokens_per_second = (tokens - last_tokens) / (now - last_time)
        self._token_count = (now, tokens)

    def _times(self) -> str:
        now = time.monotonic()
        elapsed = f"{duration(now - self._start_time)} elapsed"
        timed_steps = len(self._step_ends) - 1
        if not timed_steps or self.step >= self.max_steps:
            return elapsed
        seconds_per_step = (self._step_ends[-1] - self._step_ends[0]) / timed_steps
        remaining = seconds_per_step * (self.max_steps - self.step) - (now - self._step_ends[-1])
        return f"{elapsed}, {duration(max(0.0, remaining))} remaining"

    def _summary(self, logs: Mapping[str, Any]) -> list[str]:
        """The main numbers of a training step, of an evaluation, or of the finished run."""
        if "train_runtime" in logs:
            return [f"trained in {duration(logs['train_runtime'])}"]
        is_evaluation = "loss" not in logs and "reward" not in logs
        prefix = "eval_" if is_evaluation else ""
        parts = ["evaluation" if is_evaluation else self._times()]
        if logs.get("hpt/warmup"):
            parts.append("SFT warm-up")
        for name, template in _SUMMARY.items():
            value = logs.get(prefix + name)
            if value is not None:
                parts.append(template.format(value))
        if not is_evaluation and self.tokens_per_second is not None:
            parts.append(f"{self.tokens_per_second:,.0f} tokens/s")
        return parts

    def _redraw_every_second(self, closed: threading.Event) -> None:
        while not closed.is_set():
            self._draw()
            closed.wait(1.0)

    def _draw(self) -> None:
        with self._lock:
            if self._lines is not None:
                # A terminal that has been closed must not end the run.
                with suppress(OSError):
                    self._lines.draw(self.render(self._lines.size.columns).splitlines())

    def _close(self) -> None:
        self._closed.set()
        with self._lock, suppress(OSError):
            if self._lines is not None:
                self._lines.close()
        self._lines = None

    def render(self, columns: int) -> str:
        """The panel as text with ANSI colors.

        Args:
            columns: width of the terminal in characters.
        """
        # A separate console, because another one may be writing at the same time.
        colors: Any = Console(stderr=True).color_system
        console = Console(file=StringIO(), width=columns, force_terminal=True, color_system=colors, highlight=False)
        rows: list[RenderableType] = [
            self._bar(),
            Text("   ".join(self._summary(self.log)[1:]) or "Waiting for the first log entry."),
        ]
        rows += [self._source_bar(max(10, columns // 3)), *self._sample_lines()]
        title = Text(f" {printable(self.title)} ", no_wrap=True, overflow="ellipsis")
        panel = Panel(Group(*rows), title=title, title_align="left", height=_HEIGHT, border_style="dim")
        with console.capture() as captured:
            console.print(panel)
        return captured.get()

    def _bar(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True)
        bar = ProgressBar(total=max(1, self.max_steps), completed=self.step)
        table.add_row(Text(f"step {self.step}/{self.max_steps}"), bar, Text(self.activity or self._times()))
        return table

    def _source_bar(self, width: int) -> Text:
        """A bar that divides the prompts into those trained on rollouts and those trained on demonstrations."""
        share = self.log.get("hpt/demonstration_share")
        if share is None:
            return Text("")
        demonstrations = round(width * share)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(_ROLLOUTS[1] * (width - demonstrations), style=_ROLLOUTS[0])
        line.append(_DEMONSTRATIONS[1] * demonstrations, style=_DEMONSTRATIONS[0])
        line.append(f"  {1 - share:.0%} rollouts, {share:.0%} demonstrations")
        return line

    def _sample_lines(self) -> list[Text]:
        """The first lines of the best rollout of the last generation."""
        samples = self.samples.latest
        if not samples:
            return []
        sample = max(samples, key=_total_reward)
        prompt, completion = (
            [printable(line) for line in text.splitlines() if line.strip()]
            for text in (sample.prompt, sample.completion)
        )
        header = Text(f"{_sample_label(sample)}: ", style="dim", no_wrap=True, overflow="ellipsis")
        header.append(prompt[-1] if prompt else "")
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in completion[: _SAMPLE_LINES - 1]]
        if len(completion) >= _SAMPLE_LINES:
            lines[-1].append(" ...", style="dim")
        return [header, *lines]


def _total_reward(sample: Sample) -> float:
    return sum(value or 0.0 for value in sample.rewards.values())


def _sample_label(sample: Sample) -> str:
    return f"latest sample, {sample.notes.get('verdict') or f'reward {_total_reward(sample):g}'}"
