"""`hpt-trl prepare SOURCE`: a data set with the columns HPT trains on, or a model that loads."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from rich.console import Console
from tqdm.auto import tqdm

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.data.columns import named_converter
from hpt_trl.data.decontamination import Overlap
from hpt_trl.data.decontamination_problems import benchmark_problems
from hpt_trl.data.gguf_model import convert_gguf
from hpt_trl.data.prepare_rows import Preparation, columns_of
from hpt_trl.data.prompts import PromptStyle
from hpt_trl.data.readers import REPORT_SUFFIX, read_rows
from hpt_trl.data.refusal_report import Reason, Report
from hpt_trl.data.row_writer import RowWriter


@dataclass
class PrepareArguments:
    """
    What to prepare, how, and where to put it.

    Args:
        source (`str`): A data set (file, folder, Hub id) or a model as a `.gguf` file.
        output (`str`): The `.jsonl` or `.parquet` file, or the model's folder, to write.
    """

    source: str = field(metadata={"help": "A data set (file, folder or Hub id), or a model as a .gguf file."})
    output: str = field(metadata={"help": "The .jsonl or .parquet file to write, or the folder for a model."})
    split: str = field(default="train", metadata={"help": "Split of the data."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a data set on the Hub."})
    streaming: bool = field(
        default=False, metadata={"help": "Read a data set on the Hub as it downloads, without a copy on disk."}
    )
    limit: int | None = field(default=None, metadata={"help": "Read the first so many rows only."})
    prompt_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the question (a text, which gets the prompt_template) or the prompt's messages."
        },
    )
    demonstration_column: str | None = field(
        default=None, metadata={"help": "Column with the demonstration: a text, a message, or a list of candidates."}
    )
    solution_column: str | None = field(
        default=None, metadata={"help": "Column with the right answer; without one, the demonstration's box is taken."}
    )
    prompt_format: str | None = field(
        default=None,
        metadata={
            "help": "'chat', or 'text' for base models without a chat template. By default questions become chats, "
            "and prompts that came as prompts stay what they are."
        },
    )
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "Text with {question} in it. By default a question is asked to be answered in a box."},
    )
    prompt_system: str | None = field(
        default=None, metadata={"help": "System message of every prompt; '' removes the one the data has."}
    )
    missing_demonstration: str = field(
        default="keep", metadata={"help": "'keep' rows without a demonstration, which stay on RL, or 'refuse' them."}
    )
    decontaminate: bool = field(
        default=True, metadata={"help": "Refuse prompts that overlap a benchmark's problem, by n-grams."}
    )
    benchmarks: list[str] | None = field(
        default=None,
        metadata={
            "help": "Files, or folders of .jsonl files, with the benchmarks' problems. By default every suite of "
            "`hpt-trl evaluate` is loaded from the Hub."
        },
    )

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 row, got {self.limit}.")
        if self.benchmarks and not self.decontaminate:
            raise ValueError("benchmarks are named, but decontaminate is false: drop one of the two.")


def prepare(args: PrepareArguments) -> str:
    """Write the prepared data and its report, or the model; returns the report of what was done."""
    output = Path(args.output)
    if args.source.endswith(".gguf"):
        source = Path(args.source)
        if not source.is_file():
            raise FileNotFoundError(f"The model {args.source!r} does not exist. Give the path of a GGUF file.")
        convert_gguf(source, output)
        return f"Model written to {output}."
    writer = RowWriter(output)
    style = PromptStyle(args.prompt_format, args.prompt_template, args.prompt_system)
    columns, rows = columns_of(read_rows(args.source, args.split, args.dataset_config, args.streaming))
    if not columns:
        raise ValueError(f"The data {args.source!r} holds no rows in split {args.split!r}.")
    convert = named_converter(columns, args.prompt_column, args.demonstration_column, args.solution_column)
    report = Report()
    preparation = Preparation(convert, style, _overlap(args, report), args.missing_demonstration, report)
    with writer:
        for row in preparation.run(tqdm(islice(rows, args.limit), desc="prepare", unit="row")):
            writer.write(row)
        if not report.kept:
            raise ValueError(f"Nothing of {args.source!r} could be kept. {report.summary()} {_advice(report)}")
    path = output.with_name(output.name + REPORT_SUFFIX)
    content = {"settings": asdict(args), **report.as_dict()}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return f"{report}\nData written to {output}, this report to {path}."


def _overlap(args: PrepareArguments, report: Report) -> Overlap | None:
    if not args.decontaminate:
        report.unchecked = {"any benchmark": "decontaminate is false"}
        return None
    benchmarks = benchmark_problems(args.benchmarks)
    report.benchmarks = {name: len(problems) for name, problems in benchmarks.problems.items()}
    report.unchecked = benchmarks.missing
    return Overlap(benchmarks.problems)


def _advice(report: Report) -> str:
    """What to do when no row was kept, from the commonest reason."""
    ((reason, _),) = report.refused.most_common(1)
    if reason == Reason.CONTAMINATED:
        return "If these are test data, give --decontaminate false."
    return f"For example {report.examples[reason][0]}"


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl prepare`."""
    prog = "hpt-trl prepare"
    with user_errors(prog):
        (args,) = parse((PrepareArguments,), argv, prog, "source")
        report = prepare(args)
    Console().print(report, markup=False, highlight=False)
