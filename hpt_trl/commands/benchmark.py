"""`hpt-trl benchmark`: benchmark one training step of HPTTrainer against GRPOTrainer on this machine, as ratios."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.data.sources import MINIATURE, resolve_model
from hpt_trl.profiling.chart import draw_ratios
from hpt_trl.profiling.models import save_model_of_31m_parameters, save_random_model
from hpt_trl.profiling.ratios import Bench, Result, generation, longest_row, training

TITLES = {
    "training": "Cost / cost of what it is compared with",
    "generation": "Tokens per second / those of TRL in float32",
}
MIN_PARAMETERS = 30_000_000


@dataclass
class BenchmarkArguments:
    """
    Arguments of `hpt-trl benchmark`.

    Args:
        model (`str`): Folder, Hub id or "miniature".
    """

    model: str = field(
        default=MINIATURE,
        metadata={
            "help": "Model: a folder, a Hub id, or 'miniature' for the bundled model. Only config and tokenizer are "
            "read, because random weights cost the same."
        },
    )
    part: str = field(default="training", metadata={"help": "What to measure: 'training' or 'generation'."})
    quick: bool = field(
        default=False, metadata={"help": "Use shorter rollouts and at most 3 repeats; takes minutes on two CPU cores."}
    )
    repeats: int = field(default=5, metadata={"help": "Number of step pairs; each ratio is the median over them."})
    length: int = field(default=128, metadata={"help": "Mean rollout length in tokens."})
    dtype: str = field(default="float32", metadata={"help": "Data type of the model: 'float32' or 'bfloat16'."})
    json: str | None = field(default=None, metadata={"help": "JSON file to which the results are also written."})
    figure: str | None = field(
        default=None, metadata={"help": "Image file (.png, .svg or .pdf) to which the ratios are drawn."}
    )

    def __post_init__(self) -> None:
        if self.part not in tuple(TITLES):
            raise ValueError(f"part must be one of {tuple(TITLES)}, got {self.part!r}.")
        if self.repeats < 1 or self.length < 16:
            raise ValueError(
                f"repeats must be at least 1 and length at least 16 tokens, got {self.repeats} and {self.length}."
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}.")
        for name in ("json", "figure"):
            file = getattr(self, name)
            if file and not Path(file).absolute().parent.is_dir():
                raise ValueError(f"{name} is in a folder that does not exist: {file!r}. Create the folder first.")
        if self.figure and Path(self.figure).suffix not in (".png", ".svg", ".pdf"):
            raise ValueError(f"figure must end in .png, .svg or .pdf, got {self.figure!r}.")
        if self.quick:
            self.repeats, self.length = min(self.repeats, 3), min(self.length, 64)


def generation_table(results: Sequence[dict[str, Any]]) -> Table:
    """A rich table with one row per generation method."""
    table = Table("generation", "tokens/s", "ratio")
    for result in results:
        table.add_row(result["name"], str(result["tokens_per_second"]), f"{result['ratio']:.2f}")
    return table


def training_table(results: Sequence[Result]) -> Table:
    """A rich table with one row per ratio."""
    table = Table()
    for title in ("name", "comparison", "ratio", "goal", "met", "tokens", "baseline tokens"):
        table.add_column(title, no_wrap=title != "comparison")
    for result in results:
        memory = f" ({result.more['memory_ratio']:.2f})" if "memory_ratio" in result.more else ""
        met = "yes" if result.holds else "[red]no[/red]"
        goal, met = ("-", "-") if result.goal is None else (f"{result.goal:.2f}", met)
        ratio = f"{result.ratio:.2f}{memory}"
        table.add_row(result.name, result.what, ratio, goal, met, str(result.tokens), str(result.other_tokens))
    return table


def silence_libraries() -> None:
    """Silence the messages that every new trainer would print between the results."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # TRL's warning about rollout_func, and the profiler's start and stop messages.
    os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "KINETO_LOG_LEVEL": "99"}


def benchmark(args: BenchmarkArguments) -> list[dict[str, Any]]:
    """Measure, print a table, and return the content of the JSON file."""
    silence_libraries()
    # Output that is piped into a file has no window width to fit.
    console = Console(width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory() as folder:
        bench, larger = benches(args, folder)
        if args.part == "generation":
            speeds = list(generation(bench))
            console.print(generation_table(speeds))
            return speeds
        results = []
        for result in training(bench, larger):
            results.append(result)
            print(f"{result.name}: {result.ratio:.3f}", file=sys.stderr, flush=True)
    console.print(training_table(results))
    return [{key: value for key, value in asdict(result).items() if key != "more"} | result.more for result in results]


def benches(args: BenchmarkArguments, folder: str) -> tuple[Bench, Bench]:
    """The model to measure and, if that is small, a larger one on which overheads are measured; else the same."""
    path, bench = resolve_model(args.model), Bench(f"{folder}/model", args.model, args.length, args.repeats, args.dtype)
    parameters = save_random_model(path, bench.model, args.dtype, longest_row(args.length))
    if parameters >= MIN_PARAMETERS:
        return bench, bench
    larger = replace(bench, model=f"{folder}/larger", name="random Qwen2 of 31M parameters")
    save_model_of_31m_parameters(bench.model, larger.model, args.dtype)
    return bench, larger


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl benchmark`."""
    prog = "hpt-trl benchmark"
    with user_errors(prog):
        (args,) = parse((BenchmarkArguments,), argv, prog)
        results = benchmark(args)
        if args.json:
            Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
        if args.figure:
            draw_ratios(results, TITLES[args.part], Path(args.figure))
