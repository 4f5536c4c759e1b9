"""Any known data set -> the columns `prompt`, `demonstration`, `solution`; says what it refused and why."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""Appended to every question. Source: the prompt of Qwen2.5-Math, which the paper uses."""

_SPLITS = ("train", "validation", "test")
_FILE_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def load_rows(source: str, split: str = "train", config: str | None = None, streaming: bool = False) -> Any:
    """Load a data set from a local file, a folder of such files (`train.jsonl`, `test.jsonl`) or the Hub.

    Raises:
        FileNotFoundError: if `source` looks like a path and nothing is there.
        ValueError: if the file is empty or not what its ending says.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    path = Path(source)
    if path.is_dir():
        candidates = [path / f"{split}{suffix}" for suffix in _FILE_BUILDERS]
        path = next((candidate for candidate in candidates if candidate.exists()), path)
    if path.is_file() and path.suffix in _FILE_BUILDERS:
        if path.stat().st_size == 0:
            raise ValueError(f"The data file {source!r} is empty: 0 rows.")
        if path.stem in _SPLITS and path.stem != split:
            raise ValueError(f"Split {split!r} was asked for, but the data file {source!r} is named for {path.stem!r}.")
        try:
            return load_dataset(_FILE_BUILDERS[path.suffix], data_files=str(path), split="train", streaming=streaming)
        except DatasetsError as error:
            reason = error.__cause__ or error
            raise ValueError(f"The data file {source!r} is not readable as {path.suffix[1:]}: {reason}") from error
    if not path.exists() and (path.suffix in _FILE_BUILDERS or source.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"The data {source!r} does not exist. Give a .jsonl, .json, .csv or .parquet file, a folder with one named "
            f"for the split ({split}.jsonl), or the id of a data set on the Hub."
        )
    return load_dataset(source, name=config, split=split, streaming=streaming)


def question_prompt(question: str) -> list[dict[str, str]]:
    """One user message: the question and the instruction to box the answer."""
    return [{"role": "user", "content": f"{question.strip()}\n{INSTRUCTION}"}]


def from_gsm8k(row: Mapping[str, Any]) -> dict[str, Any]:
    """GSM8K: calculator marks `<<48/2=24>>` stripped, the answer after `####` boxed.

    Source: arXiv 2110.14168, appendix C.
    """
    reasoning, mark, answer = row["answer"].partition("####")
    if not mark:
        raise ValueError("no '####' before a final answer")
    answer = answer.strip().replace(",", "")
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    demonstration = f"{reasoning}\nThe final answer is \\boxed{{{answer}}}."
    return {"prompt": question_prompt(row["question"]), "demonstration": demonstration, "solution": answer}


def from_math(row: Mapping[str, Any]) -> dict[str, Any]:
    """MATH-style rows: `problem`, `answer`, and `solution` as the demonstration if there is one."""
    demonstration = row.get("solution") or ""
    return {"prompt": question_prompt(row["problem"]), "demonstration": demonstration, "solution": str(row["answer"])}


_SCHEMAS: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any]], dict[str, Any]]], ...] = (
    (frozenset({"question", "answer"}), from_gsm8k),
    (frozenset({"problem", "answer"}), from_math),
)


_REQUIRED = ("prompt", "question", "problem", "answer")


def converter(columns: Iterable[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The conversion for a data set with these columns; rows that are ready pass through.

    Raises:
        ValueError: for columns of no known data set.
    """
    have = set(columns)
    if {"prompt", "solution"} <= have:
        return dict
    for needed, convert in _SCHEMAS:
        if needed <= have:
            return convert
    raise ValueError(
        f"No known data set has the columns {sorted(have)}. Known are: prompt, solution (and demonstration); GSM8K's "
        "question, answer; MATH-style problem, answer (and solution). Rename yours to one of these."
    )


@dataclass
class Report:
    """How many rows came, were kept, and were refused for which reason, with up to three examples each."""

    came: int = 0
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def refuse(self, reason: str, row: Mapping[str, Any]) -> None:
        self.refused[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < 3:
            examples.append(str(dict(row))[:300])

    def __str__(self) -> str:
        lines = [f"{self.came} rows came, {self.kept} kept, {self.refused.total()} refused."]
        for reason, count in self.refused.most_common():
            lines.append(f"  {count} refused: {reason}")
            lines += [f"    e.g. {example}" for example in self.examples[reason]]
        return "\n".join(lines)


def prepare_rows(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> tuple[list[dict[str, Any]], Report]:
    """Convert rows and keep those whose demonstration, if they have one, the verifier accepts.

    Args:
        rows: of any data set that `converter` knows.
        columns: its columns.

    Returns:
        Kept rows with `prompt`, `demonstration`, `solution`, and what happened to the others.
    """
    from hpt_trl.rewards import accuracy_reward

    convert = converter(columns)
    kept: list[dict[str, Any]] = []
    report = Report()
    for row in rows:
        report.came += 1
        empty = [name for name in _REQUIRED if name in row and row[name] is None]
        if empty:
            report.refuse(f"nothing in {', '.join(empty)}", row)
            continue
        try:
            ready = convert(row)
        except ValueError as error:
            report.refuse(str(error), row)
            continue
        demonstration = ready.get("demonstration") or ""
        completion: Any = [demonstration] if isinstance(demonstration, Mapping) else demonstration
        (verdict,) = accuracy_reward([completion], [ready["solution"]])
        if verdict is None:
            report.refuse("the verifier cannot read the solution", ready)
        elif ready.get("demonstration") and not verdict:
            report.refuse("the verifier rejects the demonstration's answer", ready)
        else:
            kept.append(ready)
    report.kept = len(kept)
    return kept, report


def convert_gguf(source: Path, output: Path) -> None:
    """Save a GGUF model and its tokenizer as safetensors, which load in a fraction of the time.

    Raises:
        ImportError: without the package `gguf`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    # transformers dequantizes the weights but still refuses to save a model that came from GGUF: move them to one
    # that did not.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
