"""The benchmarks of the paper, loaded from the Hub or a folder as problems with an answer, and their prompts.

Ids, configurations, splits and columns on the Hub come from public code that loads them and from the local copies that
the tests read. This module was written without network access, so no suite has been loaded from the Hub itself.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpt_trl.data.prompts import INSTRUCTION
from hpt_trl.data.readers import load_rows
from hpt_trl.data.sources import MINIATURE, resolve_rows

IN_DISTRIBUTION = "in distribution"
OUT_OF_DISTRIBUTION = "out of distribution"

CHOICE_INSTRUCTION = (
    "Please reason step by step, and put the letter (or number) of the right option, and nothing else, "
    "within \\boxed{}."
)
"""Appended to multiple-choice questions. The paper does not publish its own instruction."""

_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")


@dataclass(frozen=True)
class Suite:
    """A benchmark: its location on the Hub and how it is evaluated.

    Args:
        title: name in tables.
        hub_id: dataset id on the Hub.
        split: split on the Hub.
        samples: completions per problem, the k of avg@k in the paper (arXiv 2509.04419, section 4.1).
        size: number of problems.
        group: the average to which the benchmark contributes; "" for none.
        config: configuration on the Hub.
        instruction: appended to every problem.
    """

    title: str
    hub_id: str
    split: str
    samples: int
    size: int
    group: str = IN_DISTRIBUTION
    config: str | None = None
    instruction: str = INSTRUCTION


SUITES: dict[str, Suite] = {
    "aime24": Suite("AIME24", "HuggingFaceH4/aime_2024", "train", 32, 30),
    "aime25": Suite("AIME25", "math-ai/aime25", "test", 32, 30),
    "amc23": Suite("AMC23", "math-ai/amc23", "test", 32, 40),
    "math500": Suite("MATH-500", "HuggingFaceH4/MATH-500", "test", 1, 500),
    "minerva": Suite("Minerva", "math-ai/minervamath", "test", 1, 272),
    "olympiadbench": Suite("OlympiadBench", "math-ai/olympiadbench", "test", 1, 674),
    "arc_challenge": Suite(
        "ARC-c", "allenai/ai2_arc", "test", 1, 1172, OUT_OF_DISTRIBUTION, "ARC-Challenge", CHOICE_INSTRUCTION
    ),
    # Gated, and its authors ask not to publish it in plain text: available by id only.
    "gpqa": Suite(
        "GPQA-diamond", "Idavidrein/gpqa", "train", 1, 198, OUT_OF_DISTRIBUTION, "gpqa_diamond", CHOICE_INSTRUCTION
    ),
    "gsm8k": Suite("GSM8K", "openai/gsm8k", "test", 1, 1319, "", "main"),
}


def select_suites(requested: Sequence[str], folder: str | None) -> tuple[list[str], list[str]]:
    """Names of the requested suites, and of the suites that "all" skips because the folder has no file for them.

    Raises:
        ValueError: for an unknown name, or if the folder has no suite.
    """
    unknown = [name for name in requested if name not in SUITES and name != "all"]
    if unknown:
        raise ValueError(f"suites must be among {', '.join(SUITES)} or 'all', got {', '.join(unknown)}.")
    if "all" not in requested:
        return list(dict.fromkeys(requested)), []
    selected = [name for name in SUITES if folder is None or name in requested or local_file(name, folder)]
    if not selected:
        raise ValueError(
            f"The folder {folder!r} has no benchmark file. Name the files like aime24.jsonl or math500.parquet."
        )
    return selected, [name for name in SUITES if name not in selected]


def local_file(name: str, folder: str) -> Path | None:
    """The suite's file in a folder: `NAME.jsonl` or `NAME/test.jsonl`, or the same with another known suffix."""
    candidates = [Path(folder) / stem for stem in (name, f"{name}/test")]
    paths = [path.with_name(path.name + suffix) for path in candidates for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def load_suite(name: str, folder: str | None = None) -> list[dict[str, Any]]:
    """Rows `{"problem", "answer"}` of a suite.

    Args:
        name: a key of `SUITES`.
        folder: searched for a file of the suite; if None or without such a file, the suite is loaded from the Hub.

    Raises:
        FileNotFoundError: if the suite is not in the folder and cannot be loaded from the Hub.
        ValueError: if a row has no problem or no answer.
    """
    suite = SUITES[name]
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"The benchmark folder {folder!r} does not exist. Give an existing folder.")
    path = local_file(name, folder) if folder is not None else None
    if path is not None:
        rows = load_rows(str(path), "test")
    else:
        try:
            rows = load_rows(suite.hub_id, suite.split, suite.config)
        except OSError as error:
            raise FileNotFoundError(
                f"The suite {name!r} could not be loaded from the Hub as {suite.hub_id!r}: {error}. Without network "
                f"access, pass a folder with {name}.jsonl as --benchmarks; a gated dataset needs `hf auth login`."
            ) from error
    return [to_problem(row, f"row {number} of {path or suite.hub_id}") for number, row in enumerate(rows)]


def load_problems(source: str, split: str, config: str | None = None) -> list[dict[str, Any]]:
    """Rows `{"problem", "answer"}`, or `{"prompt", "answer"}` if the data has prompts of its own.

    Args:
        source: file, folder, Hub id or "miniature".
        split: split of the data.
        config: configuration of a dataset on the Hub.

    Raises:
        FileNotFoundError: if there is no such data.
        ValueError: if the data has no problems or no answers.
    """
    if source != MINIATURE:
        rows = load_rows(source, split, config)
        if "prompt" not in rows.column_names and rows.column_names and _is_known(rows.column_names):
            return [to_problem(row, f"row {number} of {source}") for number, row in enumerate(rows)]
    rows = resolve_rows(source, split, config)
    if "solution" not in rows.column_names:
        raise ValueError(
            f"The data {source!r} has no column 'solution' with the gold answers, only {rows.column_names}. Add one."
        )
    return [{"prompt": row["prompt"], "answer": row["solution"]} for row in rows]


def _is_known(columns: Sequence[str]) -> bool:
    names = set(columns)
    is_plain = "answer" in names and names & {"problem", "question"}
    return bool(is_plain or names & {"answerKey", "final_answer", "Correct Answer"})


def to_problem(row: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Convert a row of a suite, from its own columns or from `problem` and `answer`.

    Args:
        row: the row.
        location: where the row is, for the error message.

    Raises:
        ValueError: if the row has no problem or no answer.
    """
    problem: str | None
    if "Correct Answer" in row:
        problem, answer = _gpqa(row)
    elif "answerKey" in row:
        choices = row["choices"]
        problem, answer = _with_options(row["question"], choices["label"], choices["text"]), row["answerKey"]
    elif "final_answer" in row:
        problem = "\n".join(part for part in (row.get("context"), row["question"]) if part)
        answer = ",".join(row["final_answer"] or [])
    else:
        problem = row.get("problem") or row.get("question")
        # GSM8K: the solution, then "####" and the answer (arXiv 2110.14168, appendix C).
        answer = "" if row.get("answer") is None else str(row["answer"])
        answer = answer.rpartition("####")[2].strip()
    if not problem or not answer:
        raise ValueError(f"There is no {'answer' if problem else 'problem'} in {location}: {str(dict(row))[:200]}")
    return {"problem": problem, "answer": answer}


def _gpqa(row: Mapping[str, Any]) -> tuple[str, str]:
    options = [row[name].strip() for name in ("Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3)))]
    order = list(range(4))
    # Seeded by the question, so that the order depends neither on the row number nor on the seed of the run.
    random.Random(row["Question"]).shuffle(order)
    return _with_options(row["Question"], "ABCD", [options[number] for number in order]), "ABCD"[order.index(0)]


def _with_options(question: str, labels: Sequence[str], texts: Sequence[str]) -> str:
    return "\n".join([question.strip(), "", *(f"{label}) {text}" for label, text in zip(labels, texts))])


def as_prompt(
    row: Mapping[str, Any], instruction: str, system_prompt: str | None, chat: bool
) -> str | list[dict[str, str]]:
    """The prompt for the model: messages for a chat model, a single text otherwise.

    Args:
        row: `{"problem"}`, or `{"prompt"}`, which is returned unchanged.
        instruction: appended to the problem; may be empty.
        system_prompt: put before the problem.
        chat: whether the tokenizer has a chat template.
    """
    if "prompt" in row:
        return row["prompt"]
    question = f"{row['problem'].strip()}\n{instruction}".strip()
    if not chat:
        return f"{system_prompt}\n\n{question}\n" if system_prompt else f"{question}\n"
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": question}]
