"""`hpt-trl prepare SOURCE`: a data set with the columns HPT trains on, or a model that loads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from tqdm.auto import tqdm

from hpt_trl.console import parse, user_errors
from hpt_trl.data import convert_gguf, load_rows, prepare_rows


@dataclass
class PrepareArguments:
    """
    What to prepare and where to put it.

    Args:
        source (`str`): A data set (file, folder, Hub id) or a model as a `.gguf` file.
        output (`str`): The `.jsonl` or `.parquet` file, or the model's folder, to write.
    """

    source: str = field(metadata={"help": "A data set (file, folder or Hub id), or a model as a .gguf file."})
    output: str = field(metadata={"help": "The .jsonl or .parquet file to write, or the folder for a model."})
    split: str = field(default="train", metadata={"help": "Split of the data."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a data set on the Hub."})


def prepare(args: PrepareArguments) -> str:
    """Write the prepared data or model; returns the report of what was done."""
    output = Path(args.output)
    if args.source.endswith(".gguf"):
        source = Path(args.source)
        if not source.is_file():
            raise FileNotFoundError(f"The model {args.source!r} does not exist. Give the path of a GGUF file.")
        convert_gguf(source, output)
        return f"Model written to {output}."
    if output.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"output must end in .jsonl or .parquet, got {args.output!r}.")
    from datasets import Dataset

    rows = load_rows(args.source, args.split, args.dataset_config)
    kept, report = prepare_rows(tqdm(rows, desc="prepare", unit="row"), rows.column_names)
    if not kept:
        raise ValueError(f"Nothing of {args.source!r} could be kept. {report}")
    output.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset.from_list(kept)
    (dataset.to_json if output.suffix == ".jsonl" else dataset.to_parquet)(str(output))
    return f"{report}\nData written to {output}."


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl prepare`."""
    prog = "hpt-trl prepare"
    if argv and not argv[0].startswith("-"):
        argv = ["--source", *argv]
    with user_errors(prog):
        (args,) = parse((PrepareArguments,), argv, prog)
        report = prepare(args)
    Console().print(report, markup=False, highlight=False)
