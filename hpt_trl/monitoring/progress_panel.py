"""What a run shows while it trains: a panel at the bottom of the terminal, or lines where there is none."""

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

from hpt_trl.monitoring.samples import Sample, SampleLog
from hpt_trl.monitoring.terminal import PinnedLines, holds_panels

_SAMPLE_LINES = 4
_HEIGHT = 6 + _SAMPLE_LINES
# Times of this many steps tell how long the rest will take.
_RECENT_STEPS = 50
# Told apart by colour-blind readers, and by their hatching without colours.
_ROLLOUTS, _DEMONSTRATIONS = ("blue", "█"), ("yellow", "▒")


def show_progress(trainer: Trainer, samples: SampleLog) -> "ProgressPanel":
    """Put the panel in the place of transformers' bar; where there is none (`disable_tqdm`, notebooks), change nothing.

    Args:
        trainer: whose callbacks may hold a `ProgressCallback`.
        samples: of the last generation.

    Returns:
        The panel, as a context that leaves the terminal as it was, also after an error.
    """
    panel = ProgressPanel(samples)
    # By its very type: notebooks have another, and a subclass is a user's choice.
    bars = [callback for callback in trainer.callback_handler.callbacks if type(callback) is ProgressCallback]
    for bar in bars:
        trainer.remove_callback(bar)
    if bars:
        trainer.add_callback(panel)
    return panel


def duration(seconds: float) -> str:
    """Like 0:07, 12:30 or 27:03:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor or change its colours."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class ProgressPanel(TrainerCallback):
    """
    Shows step, time left, tokens per second, reward, solve rate, what prompts learn from, and a sample.

    On the main process only. A panel where stdout and stderr are a terminal, redrawn every second; else a line on
    stdout whenever the run logs.

    Args:
        samples: of the last generation.
    """

    def __init__(self, samples: SampleLog) -> None:
        self.samples = samples
        self._lines: PinnedLines | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._restart(0, 0)

    def _restart(self, step: int, steps: int) -> None:
        self.title, self.step, self.steps, self.activity = "", step, steps, ""
        self._evaluated = 0  # batches
        self.log: dict[str, Any] = {}
        self.tokens_per_second: float | None = None
        self._began = time.monotonic()
        self._ends = deque([self._began], maxlen=_RECENT_STEPS + 1)  # of the steps
        self._tokens: tuple[float, float] | None = None  # when, how many

    def __enter__(self) -> "ProgressPanel":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    # Events.

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self._close()
        self._restart(state.global_step, state.max_steps)
        self.title = str(args.output_dir)
        past = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
        if past or not state.global_step:
            self._tokens = (self._began, past[-1] if past else 0.0)
        if holds_panels(sys.stderr, sys.stdout):
            self._lines = PinnedLines(sys.stderr, _HEIGHT)
            self._over = threading.Event()
            threading.Thread(target=self._tick, args=(self._over,), daemon=True).start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step = state.global_step
        self._ends.append(time.monotonic())

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        batches = kwargs.get("eval_dataloader")
        self._evaluated += 1
        self.activity = f"evaluating {self._evaluated}" + (f"/{len(batches)}" if has_length(batches) else "")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.activity, self._evaluated = "", 0

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
            self._count_tokens(logs.get("num_tokens"))
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
        # An evaluation of its own is of no step.
        step = [f"step {self.step}/{self.steps}"] if self.steps else []
        print(" | ".join([*step, *self._facts(logs)]), flush=True)

    # What is known.

    def _count_tokens(self, tokens: float | None) -> None:
        now = time.monotonic()
        if tokens is None:
            return
        if self._tokens is not None and now > self._tokens[0]:
            self.tokens_per_second = (tokens - self._tokens[1]) / (now - self._tokens[0])
        self._tokens = (now, tokens)

    def _times(self) -> str:
        gone = f"{duration(time.monotonic() - self._began)} gone"
        done = len(self._ends) - 1
        if not done or self.step >= self.steps:
            return gone
        each = (self._ends[-1] - self._ends[0]) / done
        since = time.monotonic() - self._ends[-1]
        return f"{gone}, {duration(max(0.0, each * (self.steps - self.step) - since))} left"

    def _facts(self, logs: Mapping[str, Any]) -> list[str]:
        """What there is to tell of a training step, an evaluation, or the whole run."""
        if "train_runtime" in logs:
            return [f"trained in {duration(logs['train_runtime'])}"]
        is_evaluation = "loss" not in logs and "reward" not in logs
        names = ("reward", "hpt/solve_rate", "hpt/demonstration_share")
        reward, solved, share = (logs.get(f"eval_{name}" if is_evaluation else name) for name in names)
        speed = None if is_evaluation else self.tokens_per_second
        found = {
            "evaluation" if is_evaluation else self._times(): True,
            f"reward {reward or 0:.3f}": reward is not None,
            f"solved {100 * (solved or 0):.0f} %": solved is not None,
            f"on demonstrations {100 * (share or 0):.0f} %": share is not None,
            f"{speed or 0:,.0f} tokens/s": speed is not None,
        }
        return [fact for fact, is_known in found.items() if is_known]

    # The panel.

    def _tick(self, over: threading.Event) -> None:
        while not over.is_set():
            self._draw()
            over.wait(1.0)

    def _draw(self) -> None:
        with self._lock:
            if self._lines is not None:
                # A terminal that went away must not end the run.
                with suppress(OSError):
                    self._lines.draw(self.render(self._lines.size.columns).splitlines())

    def _close(self) -> None:
        self._over.set()
        with self._lock, suppress(OSError):
            if self._lines is not None:
                self._lines.close()
        self._lines = None

    def render(self, columns: int) -> str:
        """The panel as text with a terminal's colours, as wide as the terminal.

        Args:
            columns: width of the terminal in letters.
        """
        # Of its own: another console could be writing at this moment.
        colours: Any = Console(stderr=True).color_system
        console = Console(file=StringIO(), width=columns, force_terminal=True, color_system=colours, highlight=False)
        rows: list[RenderableType] = [
            self._bar(),
            Text("   ".join(self._facts(self.log)[1:]) or "The first step is not logged yet."),
        ]
        rows += [self._sources(max(10, columns // 3)), *self._sample_lines(columns - 4)]
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
        bar = ProgressBar(total=max(1, self.steps), completed=self.step)
        table.add_row(Text(f"step {self.step}/{self.steps}"), bar, Text(self.activity or self._times()))
        return table

    def _sources(self, width: int) -> Text:
        """A bar of prompts on rollouts against demonstrations."""
        share = self.log.get("hpt/demonstration_share")
        if share is None:
            return Text("")
        demonstrations = round(width * share)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(_ROLLOUTS[1] * (width - demonstrations), style=_ROLLOUTS[0])
        line.append(_DEMONSTRATIONS[1] * demonstrations, style=_DEMONSTRATIONS[0])
        line.append(f"  rollouts {100 * (1 - share):.0f} %, ")
        line.append(f"demonstrations {100 * share:.0f} %")
        return line

    def _sample_lines(self, width: int) -> list[Text]:
        """The first lines of the best rollout of the last generation."""
        samples = self.samples.latest
        if not samples:
            return []
        sample = max(samples, key=_total_reward)
        prompt, completion = (
            [printable(line) for line in text.splitlines() if line.strip()]
            for text in (sample.prompt, sample.completion)
        )
        head = Text(f"{_told(sample)}: ", style="dim", no_wrap=True, overflow="ellipsis")
        head.append(prompt[-1] if prompt else "")
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in completion[: _SAMPLE_LINES - 1]]
        if len(completion) >= _SAMPLE_LINES:
            lines[-1].append(" ...", style="dim")
        return [head, *lines]


def _total_reward(sample: Sample) -> float:
    return sum(value or 0.0 for value in sample.rewards.values())


def _told(sample: Sample) -> str:
    return f"last sample, {sample.notes.get('verdict') or f'reward {_total_reward(sample):g}'}"
