"""`hpt-trl prepare SOURCE`: convert a dataset to the columns HPT trains on, or a GGUF file to a model that loads."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from tqdm.auto import tqdm

from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.logs import say
from hpt_trl.common.masking import masked
from hpt_trl.data.columns import boxing, named_converter
from hpt_trl.data.decontamination import Overlap
from hpt_trl.data.decontamination_problems import benchmark_problems
from hpt_trl.data.gguf_model import convert_gguf
from hpt_trl.data.preparation import Preparation, columns_of
from hpt_trl.data.prompts import PromptStyle
from hpt_trl.data.readers import REPORT_SUFFIX, read_rows
from hpt_trl.data.refusal_report import Reason, Report
from hpt_trl.data.row_writer import RowWriter
from hpt_trl.verifier.custom import DEFAULT_VERIFIER, named_verifier, verifier_help

_CHAT_FORM = (
    "The prompts are conversations, for models with a chat template. For a base model without one, add --prompt_format "
    "text."
)


@dataclass
class PrepareArguments:
    """
    Arguments of `hpt-trl prepare`.

    Args:
        source (`str`): A dataset (file, folder, Hub id) or a model as a `.gguf` file.
        output (`str`): The `.jsonl` or `.parquet` file, or the model folder, to write.
    """

    source: str = field(metadata={"help": "A dataset (file, folder or Hub id), or a model as a .gguf file."})
    output: str = field(metadata={"help": "The .jsonl or .parquet file to write, or the folder for a model."})
    split: str = field(default="train", metadata={"help": "Split of the dataset."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration name of a dataset on the Hub."})
    streaming: bool = field(
        default=False, metadata={"help": "Stream a dataset from the Hub instead of downloading it to disk."}
    )
    limit: int | None = field(default=None, metadata={"help": "Read only the first LIMIT rows."})
    prompt_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the question (a text, to which prompt_template is applied) or the prompt messages."
        },
    )
    demonstration_column: str | None = field(
        default=None, metadata={"help": "Column with the demonstration: a text, a message, or a list of candidates."}
    )
    solution_column: str | None = field(
        default=None,
        metadata={"help": "Column with the correct answer. Default: the boxed answer of the demonstration."},
    )
    solution_pattern: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression whose group is the answer in the demonstration, such as '#### (.+)', where it "
            "is not boxed; it is boxed then."
        },
    )
    prompt_format: str | None = field(
        default=None,
        metadata={
            "help": "'chat', or 'text' for base models without a chat template. By default, questions become chats "
            "and existing prompts keep their format."
        },
    )
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "Text that contains {question}. Default: the question and an instruction to box the answer."},
    )
    prompt_system: str | None = field(
        default=None, metadata={"help": "System message of every prompt; '' removes the dataset's own."}
    )
    missing_demonstration: str = field(
        default="keep",
        metadata={"help": "'keep' rows without a demonstration (they are trained on rollouts only) or 'refuse' them."},
    )
    verifier: str = field(default=DEFAULT_VERIFIER, metadata={"help": verifier_help("demonstrations")})
    decontaminate: bool = field(
        default=True, metadata={"help": "Refuse prompts whose n-grams overlap with a benchmark problem."}
    )
    benchmarks: list[str] | None = field(
        default=None,
        metadata={
            "help": "Files, or folders of .jsonl files, with the benchmark problems. By default, every suite of "
            "`hpt-trl evaluate` is loaded from the Hub."
        },
    )

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 row, got {self.limit}.")
        if self.benchmarks and not self.decontaminate:
            raise ValueError("benchmarks has no effect with decontaminate=false: remove one of the two options.")


def prepare(args: PrepareArguments) -> str:
    """Write the prepared dataset and its report, or the model; return a summary."""
    output = Path(args.output)
    if args.source.endswith(".gguf"):
        source = Path(args.source)
        if not source.is_file():
            raise FileNotFoundError(f"The model {args.source!r} does not exist. Pass the path of a GGUF file.")
        convert_gguf(source, output)
        return f"Model written to {output}."
    writer = RowWriter(output)
    style = PromptStyle(args.prompt_format, args.prompt_template, args.prompt_system)
    columns, rows = columns_of(read_rows(args.source, args.split, args.dataset_config, args.streaming))
    if not columns:
        raise ValueError(f"The dataset {args.source!r} has no rows in split {args.split!r}.")
    convert = named_converter(columns, args.prompt_column, args.demonstration_column, args.solution_column)
    if args.solution_pattern:
        convert = boxing(convert, args.solution_pattern, args.demonstration_column)
    report = Report()
    preparation = Preparation(
        convert, style, _overlap(args, report), args.missing_demonstration, report, named_verifier(args.verifier)
    )
    with writer:
        for row in preparation.run(tqdm(islice(rows, args.limit), desc="prepare", unit="row")):
            writer.write(row)
        if not report.kept:
            raise ValueError(f"No row of {args.source!r} could be kept. {report.summary()} {_advice(report, args)}")
    path = output.with_name(output.name + REPORT_SUFFIX)
    content = {"settings": asdict(args), **report.as_dict()}
    path.write_text(json.dumps(masked(content), indent=1, ensure_ascii=False), encoding="utf-8")
    form = "" if preparation.prompt_type is str else f"{_CHAT_FORM}\n"
    return f"{report}\n{form}Dataset written to {output}, this report to {path}."


def _overlap(args: PrepareArguments, report: Report) -> Overlap | None:
    if not args.decontaminate:
        report.unchecked = {"any benchmark": "decontaminate is false"}
        return None
    benchmarks = benchmark_problems(args.benchmarks)
    report.benchmarks = {name: len(problems) for name, problems in benchmarks.problems.items()}
    report.unchecked = benchmarks.missing
    return Overlap(benchmarks.problems)


def _advice(report: Report, args: PrepareArguments) -> str:
    """What to do when no row was kept, based on the most common reason."""
    ((reason, _),) = report.refused.most_common(1)
    if reason == Reason.CONTAMINATED:
        return "If this is test data, pass --decontaminate false."
    if reason in (Reason.NO_SOLUTION, Reason.NO_BOX) and not args.solution_pattern:
        return (
            f"For example {report.examples[reason][0]}. Name the column of the answers by --solution_column, or, if "
            "the demonstrations mark their answers otherwise than by a box, their form: --solution_pattern '#### (.+)'."
        )
    return f"For example {report.examples[reason][0]}"


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl prepare`."""
    prog = "hpt-trl prepare"
    with user_errors(prog):
        (args,) = parse((PrepareArguments,), argv, prog, "source")
        report = prepare(args)
    say(report)
