"""How many problems does a model solve? Sampled completions, verdicts, accuracy with a 95 % interval."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hpt_trl.console import parse, user_errors
from hpt_trl.rewards import accuracy_reward
from hpt_trl.sources import resolve_model, resolve_rows


@dataclass
class EvaluateArguments:
    """
    What to evaluate and how.

    Args:
        model (`str`): Folder, Hub id or "miniature".
        data (`str`): File, folder, Hub id or "miniature".
    """

    model: str = field(metadata={"help": "Model: a folder, a Hub id, or 'miniature'."})
    data: str = field(metadata={"help": "Problems: a file, a folder, a Hub id, or 'miniature'."})
    split: str = field(default="test", metadata={"help": "Split of the data."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a data set on the Hub."})
    limit: int | None = field(default=None, metadata={"help": "Take the first so many problems."})
    samples: int = field(default=1, metadata={"help": "Completions a problem; accuracy is their mean (avg@k)."})
    # Source of the sampling defaults: arXiv 2509.04419, section 4.1.
    temperature: float = field(default=0.6, metadata={"help": "Sampling temperature; 0 decodes greedily."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus of the sampling distribution, in (0, 1]."})
    max_new_tokens: int = field(default=512, metadata={"help": "Longest completion in tokens."})
    batch_size: int = field(default=32, metadata={"help": "Completions generated together."})
    seed: int = field(default=0, metadata={"help": "Seed of the sampling."})
    dtype: str = field(default="float32", metadata={"help": "'float32' or 'bfloat16'."})
    output: str | None = field(default=None, metadata={"help": "Write settings, completions and verdicts as JSON."})

    def __post_init__(self) -> None:
        if self.samples < 1 or self.batch_size < 1 or self.max_new_tokens < 1 or self.temperature < 0:
            raise ValueError(
                f"samples, batch_size and max_new_tokens must be at least 1 and temperature at least 0, got "
                f"{self.samples}, {self.batch_size}, {self.max_new_tokens} and {self.temperature}."
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 problem, got {self.limit}.")
        if self.output and not Path(self.output).absolute().parent.is_dir():
            raise ValueError(f"output names a folder that does not exist: {self.output!r}. Make it first.")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {self.dtype!r}.")


@dataclass
class Score:
    """Accuracy over problems, in [0, 1], its 95 % interval, and what it was counted from."""

    accuracy: float
    low: float
    high: float
    problems: int
    verdicts: list[list[float | None]]
    completions: list[list[str]]

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson_interval(accuracy: float, problems: int) -> tuple[float, float]:
    """95 % interval of a share of `problems` independent problems.

    With several samples a problem, problems and not samples are counted as independent, which errs on the wide side.

    Source: Wilson, "Probable inference", JASA 22 (1927).
    """
    z = 1.96
    centre = (accuracy + z**2 / (2 * problems)) / (1 + z**2 / problems)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / problems + z**2 / (4 * problems**2)) / (1 + z**2 / problems)
    return max(0.0, centre - spread), min(1.0, centre + spread)


@torch.no_grad()
def complete(model: Any, tokenizer: Any, prompts: Sequence[Any], args: EvaluateArguments, title: str) -> list[str]:
    """Sample one completion a prompt, in batches sorted by length so that little is padded.

    Args:
        model, tokenizer: a causal LM and its tokenizer.
        prompts: texts or lists of messages.
        args: sampling settings.
        title: shown beside the progress bar.
    """
    is_chat = bool(prompts) and not isinstance(prompts[0], str)
    texts = [_chat_text(tokenizer, prompt) if is_chat else prompt for prompt in prompts]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "top_k": 0} if args.temperature else {}
    completions = [""] * len(texts)
    starts = range(0, len(order), args.batch_size)
    for start in tqdm(starts, desc=title, unit="batch"):
        rows = order[start : start + args.batch_size]
        # A chat template writes the special tokens itself.
        inputs = tokenizer(
            [texts[row] for row in rows], return_tensors="pt", padding=True, add_special_tokens=not is_chat
        )
        outputs = model.generate(
            **inputs.to(model.device),
            max_new_tokens=args.max_new_tokens,
            do_sample=args.temperature > 0,
            pad_token_id=tokenizer.pad_token_id,
            **sampling,
        )
        decoded = tokenizer.batch_decode(outputs[:, inputs["input_ids"].size(1) :], skip_special_tokens=True)
        for row, text in zip(rows, decoded):
            completions[row] = text
    return completions


def _chat_text(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def evaluate(args: EvaluateArguments) -> Score:
    """Load model and problems, sample, judge, and count."""
    rows = resolve_rows(args.data, args.split, args.dataset_config)
    rows = rows.select(range(min(args.limit or len(rows), len(rows))))
    if len(rows) == 0:
        raise ValueError(f"The data {args.data!r} holds no problem in split {args.split!r}.")
    path = resolve_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, args.dtype))
    model.to(device).eval()
    set_seed(args.seed)
    prompts = [prompt for prompt in rows["prompt"] for _ in range(args.samples)]
    solutions = [solution for solution in rows["solution"] for _ in range(args.samples)]
    texts = complete(model, tokenizer, prompts, args, f"evaluate {args.model}")
    return score(texts, accuracy_reward(texts, solutions), args.samples)


def score(completions: Sequence[str], verdicts: Sequence[float | None], samples: int) -> Score:
    """Average the verdicts; a problem whose solution the verifier cannot read counts as not solved."""
    problems = len(verdicts) // samples
    accuracy = sum(verdict or 0.0 for verdict in verdicts) / len(verdicts)

    def grouped(values: Sequence[Any]) -> list[list[Any]]:
        return [list(values[row * samples : (row + 1) * samples]) for row in range(problems)]

    return Score(accuracy, *wilson_interval(accuracy, problems), problems, grouped(verdicts), grouped(completions))


def score_table(scores: dict[str, Score]) -> Table:
    """A rich table with one row a model."""
    table = Table("model", "problems", "accuracy", "95 % interval")
    for name, result in scores.items():
        table.add_row(name, str(result.problems), f"{result.accuracy:.1%}", f"{result.low:.1%} to {result.high:.1%}")
    return table


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl evaluate`."""
    prog = "hpt-trl evaluate"
    with user_errors(prog):
        (args,) = parse((EvaluateArguments,), argv, prog)
        result = evaluate(args)
        Console().print(score_table({args.model: result}))
        if args.output:
            Path(args.output).write_text(json.dumps({"settings": asdict(args), **asdict(result)}, indent=1))
