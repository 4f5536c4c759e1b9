"""`hpt-trl demonstrate`: sample the demonstrations that a dataset lacks from a model, and keep what is right."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hpt_trl.common.command_line import parse, run_errors, user_errors
from hpt_trl.common.errors import RunError
from hpt_trl.common.files import write_atomically
from hpt_trl.common.logs import say
from hpt_trl.common.masking import masked
from hpt_trl.common.thinking import TAIL_TOKENS, opened_part
from hpt_trl.common.versions import versions_of
from hpt_trl.data.columns import converter
from hpt_trl.data.preparation import Preparation, columns_of
from hpt_trl.data.prompts import Prompt
from hpt_trl.data.readers import REPORT_SUFFIX, read_rows
from hpt_trl.data.row_writer import RowWriter
from hpt_trl.data.sources import MINIATURE, resolve_rows
from hpt_trl.evaluation.demonstrations import CHOICES, Complete, Demonstrations, sample_demonstrations
from hpt_trl.evaluation.endpoint import KEY_VARIABLE, Endpoint
from hpt_trl.evaluation.engines import (
    DTYPES,
    Sampling,
    TransformersEngine,
    VLLMEngine,
    load_tokenizer,
    resolve_checkpoint,
)
from hpt_trl.evaluation.sampling import NO_TEMPLATE, token_ids
from hpt_trl.verifier.custom import DEFAULT_VERIFIER, named_verifier, verifier_help

BATCH_SIZES = {"transformers": 32, "vllm": 1024, "endpoint": 64}


@dataclass
class DemonstrateArguments:
    """
    Arguments of `hpt-trl demonstrate`.

    Args:
        source (`str`): A dataset with solutions: a file, a folder, a Hub id, or "miniature".
        output (`str`): The `.jsonl` or `.parquet` file to write.
        model (`str`): The model that writes the demonstrations.
    """

    source: str = field(
        metadata={
            "help": "A dataset with prompts and solutions: a file, a folder, a Hub id, or 'miniature'. `hpt-trl "
            "prepare` makes one from any dataset."
        }
    )
    output: str = field(metadata={"help": "The .jsonl or .parquet file to write."})
    model: str = field(
        metadata={
            "help": "The model that writes the demonstrations: a folder, a Hub id or 'miniature'; with an endpoint, "
            "the name that the server knows it by."
        }
    )
    endpoint: str | None = field(
        default=None,
        metadata={
            "help": "Address of a server with OpenAI's protocol, such as http://127.0.0.1:8000/v1. Its key is read "
            f"from the environment variable {KEY_VARIABLE}."
        },
    )
    engine: str = field(
        default="transformers", metadata={"help": "Without an endpoint: 'transformers' or 'vllm', in this process."}
    )
    split: str = field(default="train", metadata={"help": "Split of the dataset."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration name of a dataset on the Hub."})
    limit: int | None = field(default=None, metadata={"help": "Read only the first LIMIT rows."})
    samples: int = field(default=8, metadata={"help": "Maximum number of completions per prompt."})
    choose: str = field(
        default="first",
        metadata={
            "help": "Which of the accepted completions to keep: 'first' (then no more are sampled for the prompt), "
            "'shortest' (fewest tokens) or 'most_likely' (highest log-probability under the model)."
        },
    )
    temperature: float = field(default=0.6, metadata={"help": "Sampling temperature; 0 means greedy decoding."})
    top_p: float = field(default=0.95, metadata={"help": "Probability mass for nucleus sampling, in (0, 1]."})
    max_new_tokens: int = field(
        default=2048, metadata={"help": "Maximum length in tokens; a completion that reaches it is not kept."}
    )
    batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Number of completions sampled and saved together. Default: "
            + ", ".join(f"{size} with {name}" for name, size in BATCH_SIZES.items())
            + "."
        },
    )
    dtype: str = field(default="auto", metadata={"help": f"Data type of the model: one of {', '.join(DTYPES)}."})
    verifier: str = field(default=DEFAULT_VERIFIER, metadata={"help": verifier_help("completions")})
    missing_demonstration: str = field(
        default="keep",
        metadata={"help": "'keep' rows for which nothing was accepted (trained on rollouts only) or 'refuse' them."},
    )
    seed: int = field(default=0, metadata={"help": "Random seed for sampling."})

    def __post_init__(self) -> None:
        for name in ("limit", "samples", "max_new_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature must be at least 0 and top_p in (0, 1], got {self.temperature} and {self.top_p}."
            )
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("With temperature 0, all samples of a prompt are the same: set samples to 1.")
        if self.choose not in CHOICES:
            raise ValueError(f"choose must be one of {', '.join(CHOICES)}, got {self.choose!r}.")
        if self.missing_demonstration not in ("keep", "refuse"):
            raise ValueError(f"missing_demonstration must be 'keep' or 'refuse', got {self.missing_demonstration!r}.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")
        self._check_engine()
        named_verifier(self.verifier)

    def _check_engine(self) -> None:
        if self.engine not in ("transformers", "vllm"):
            raise ValueError(f"engine must be 'transformers' or 'vllm', got {self.engine!r}.")
        if self.endpoint is not None:
            Endpoint(self.endpoint, self.model)
        elif self.engine == "vllm" and self.choose == "most_likely":
            raise ValueError(
                "choose='most_likely' needs log-probabilities, which this command takes from transformers or from a "
                "server. Start `vllm serve` and pass its address as --endpoint."
            )

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters."""
        return Sampling(self.temperature, self.top_p, self.max_new_tokens)

    @property
    def completions_per_batch(self) -> int:
        """Number of completions sampled and saved together."""
        return self.batch_size or BATCH_SIZES["endpoint" if self.endpoint else self.engine]


def demonstrate(args: DemonstrateArguments) -> str:
    """Write the dataset with the demonstrations found, and a report beside it; return a summary.

    Raises:
        ValueError, OSError: if the data or the model cannot be used.
        RunError: if the server fails, or no completion can be compared as `choose` asks.
    """
    output = Path(args.output)
    writer = RowWriter(output)
    rows, preparation = _rows(args)
    result = _sample(args, rows)
    kept = [
        {**row, "demonstration": row["demonstration"] or result.texts.get(index, "")} for index, row in enumerate(rows)
    ]
    if args.missing_demonstration == "refuse":
        kept = [row for row in kept if row["demonstration"]]
    if not any(row["demonstration"] for row in kept):
        raise RunError(
            f"Nothing to write: no row of {args.source!r} has a demonstration. {result} Raise samples or "
            "max_new_tokens, or take a stronger model."
        )
    with writer:
        for row in kept:
            writer.write(row)
    return _report(args, preparation, result, len(kept))


def _sample(args: DemonstrateArguments, rows: Sequence[dict[str, Any]]) -> Demonstrations:
    folder = Path(args.output).with_name(f"{Path(args.output).name}.samples")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Two commands at the same time would mix their completions. The lock is released when the process ends.
        with FileLock(folder / ".lock", timeout=0):
            return sample_demonstrations(
                rows,
                _completer(args),
                named_verifier(args.verifier),
                folder,
                _settings(args, rows),
                args.samples,
                args.choose,
                args.completions_per_batch,
                args.seed,
            )
    except Timeout:
        raise ValueError(
            f"Another command is writing to {str(folder)!r}. Wait for it, or pass another output."
        ) from None


def _rows(args: DemonstrateArguments) -> tuple[list[dict[str, Any]], Preparation]:
    """The usable rows; demonstrations that they already have are verified."""
    if args.source == MINIATURE:
        rows_of_task = resolve_rows(args.source, args.split, args.dataset_config)
        source: Any = iter({**row, "demonstration": ""} for row in rows_of_task)
    else:
        source = read_rows(args.source, args.split, args.dataset_config)
    columns, source = columns_of(source)
    preparation = Preparation(converter(columns), verifier=named_verifier(args.verifier))
    rows = list(preparation.run(islice(source, args.limit)))
    if not rows:
        raise ValueError(f"No row of {args.source!r} can be used. {preparation.report.summary()}")
    return rows, preparation


def _completer(args: DemonstrateArguments) -> Complete:
    """Samples from the server or the model; a model is loaded at the first call."""
    is_scored = args.choose == "most_likely"
    if args.endpoint:
        endpoint = Endpoint(args.endpoint, args.model, with_logps=is_scored)
        return lambda prompts, seed: endpoint.complete(prompts, args.sampling, seed)
    checkpoint = resolve_checkpoint(args.model)

    @cache
    def engine() -> Any:
        tokenizer = load_tokenizer(checkpoint)
        if args.engine == "vllm":
            return VLLMEngine(checkpoint, tokenizer, args.dtype)
        return TransformersEngine(checkpoint, tokenizer, args.dtype, with_logps=is_scored)

    def complete(prompts: Sequence[Prompt], seed: int) -> Any:
        tokenizer = engine().tokenizer
        if tokenizer.chat_template is None and not all(isinstance(prompt, str) for prompt in prompts):
            raise RunError(NO_TEMPLATE)
        ids = [token_ids(prompt, tokenizer) for prompt in prompts]
        completions = engine().complete(ids, args.sampling, seed)
        # As a demonstration, a completion has the `<think>` that its prompt opened.
        opened = [opened_part(tokenizer.decode(prompt[-TAIL_TOKENS:])) for prompt in ids]
        return [replace(completion, text=part + completion.text) for part, completion in zip(opened, completions)]

    return complete


def _settings(args: DemonstrateArguments, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a saved completion depends on. Later rounds may be added, so not the number of samples."""
    irrelevant = ("output", "samples", "missing_demonstration")
    arguments = {name: value for name, value in asdict(args).items() if name not in irrelevant}
    content = json.dumps([[row["prompt"], row["solution"], bool(row["demonstration"])] for row in rows]).encode()
    return masked(
        {
            **arguments,
            "batch_size": args.completions_per_batch,
            "rows": len(rows),
            "prompts_and_answers": hashlib.sha256(content).hexdigest()[:16],
        }
    )


def _report(args: DemonstrateArguments, preparation: Preparation, result: Demonstrations, kept: int) -> str:
    output = Path(args.output)
    path = output.with_name(output.name + REPORT_SUFFIX)
    content = {
        # As `hpt-trl prepare` writes it, so that a model card names the source.
        "settings": asdict(args),
        **preparation.report.as_dict(),
        "kept": kept,
        "demonstrations": {
            "missing": result.missing,
            "found": len(result.texts),
            "completions": result.samples,
            "accepted": result.accepted,
            "cut": result.cut,
        },
        "versions": versions_of(["torch", "transformers", "vllm", "math-verify"]),
    }
    write_atomically(path, json.dumps(masked(content), indent=1, ensure_ascii=False))
    return (
        f"{preparation.report.summary()}\n{result}\n{kept} rows written to {output}, a report to {path}. The "
        f"completions are in {output.name}.samples; delete it when no more are needed."
    )


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl demonstrate`."""
    prog = "hpt-trl demonstrate"
    with user_errors(prog):
        (args,) = parse((DemonstrateArguments,), argv, prog, "source")
        with run_errors(prog, how_to_continue="The same command continues with the completions that are saved."):
            summary = demonstrate(args)
    say(summary)
