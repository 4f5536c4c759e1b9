"""Turns suites into prompts, and samples and judges answers batch by batch, resuming where an earlier run stopped.

The prompts and the seed of a batch do not depend on what was sampled before it, so a run that was killed and restarted
gives the same answers as an uninterrupted run.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError
from tqdm.auto import tqdm

from hpt_trl.common.thinking import OPENS_THINKING, TAIL_TOKENS, opens_thinking
from hpt_trl.common.versions import versions_of
from hpt_trl.data.benchmarks import SUITES, Suite, as_prompt, load_problems, load_suite, select_suites
from hpt_trl.data.prompts import Prompt
from hpt_trl.evaluation.arguments import BATCH_SIZES, MAX_COMPLETION_LENGTH, EvaluateArguments
from hpt_trl.evaluation.engines import Checkpoint, Engine, Sampling, device, resolve_dtype
from hpt_trl.evaluation.journal import Journal
from hpt_trl.evaluation.scores import Answer
from hpt_trl.verifier.custom import DEFAULT_VERIFIER, Verifier, named_verifier


@dataclass(frozen=True)
class Task:
    """The problems of one suite, ready to be sampled.

    Args:
        name: key of the suite, and name of its files.
        suite: title, group and instruction of the suite.
        problems: rows with `answer`, and with `problem` or `prompt`.
        prompts: token ids of each problem's prompt.
        samples: number of completions per problem.
        texts: each problem's prompt as text or messages, for a verifier of the user's.
        opens_thinking: whether each prompt ends with `<think>`, which its completions continue.
    """

    name: str
    suite: Suite
    problems: list[dict[str, Any]]
    prompts: list[list[int]]
    samples: int
    texts: list[Any] = field(default_factory=list)
    opens_thinking: list[bool] = field(default_factory=list)

    def batches(self, size: int) -> list[list[tuple[int, int]]]:
        """(problem, sample) of each batch, with prompts of similar length together to reduce padding."""
        # The longest first, so that running out of memory happens immediately and not after hours.
        order = sorted(range(len(self.prompts)), key=lambda problem: -len(self.prompts[problem]))
        requests = [(problem, sample) for problem in order for sample in range(self.samples)]
        return [requests[start : start + size] for start in range(0, len(requests), size)]


def load_tasks(args: EvaluateArguments, tokenizer: Any) -> tuple[dict[str, Task], list[str]]:
    """The problems of every suite and of `--data` as prompts, and notes on what was left out.

    Raises:
        ValueError: if there are no problems, or an instruction is given for data that contains complete prompts.
    """
    names, left_out = select_suites(args.suites or [], args.benchmarks)
    sources = {name: (SUITES[name], load_suite(name, args.benchmarks)) for name in names}
    if args.data:
        name = re.sub(r"[^\w.-]+", "_", args.data).strip("_.") or "data"
        title = "/".join(filter(None, [*Path(args.data).parts[-2:], args.dataset_config]))
        suite = Suite(title, args.data, args.split, samples=1, size=0, group="")
        sources[f"data_{name}"] = suite, load_problems(args.data, args.split, args.dataset_config)
    tasks = {}
    for name, (suite, rows) in sources.items():
        problems = rows[: args.limit]
        if not problems:
            raise ValueError(f"{suite.title!r} has no problems in split {suite.split!r}.")
        if "prompt" in problems[0] and (args.instruction is not None or args.system_prompt is not None):
            raise ValueError(
                f"{suite.title!r} contains complete prompts, so instruction and system_prompt would be ignored: leave "
                "them out."
            )
        prompts = [prompt_ids(row, suite, args, tokenizer) for row in problems]
        texts = [prompt_text(row, suite, args, tokenizer) for row in problems]
        opened = [opens_thinking(tokenizer.decode(prompt[-TAIL_TOKENS:])) for prompt in prompts]
        tasks[name] = Task(name, suite, problems, prompts, args.samples or suite.samples, texts, opened)
    notes = [f"Skipped because {args.benchmarks} has no file for them: {', '.join(left_out)}."] if left_out else []
    return tasks, notes


NO_TEMPLATE = (
    "The prompts are conversations, but the tokenizer of the model has no chat template to render them. Use the "
    "instruct version of the model, or provide prompts as strings (`hpt-trl prepare --prompt_format text`)."
)


def prompt_text(row: dict[str, Any], suite: Suite, args: EvaluateArguments, tokenizer: Any) -> Any:
    """A problem's prompt: messages if the model has a chat template, otherwise a text."""
    instruction = suite.instruction if args.instruction is None else args.instruction
    return as_prompt(row, instruction, args.system_prompt, chat=tokenizer.chat_template is not None)


def prompt_ids(row: dict[str, Any], suite: Suite, args: EvaluateArguments, tokenizer: Any) -> list[int]:
    """Token ids of a problem's prompt.

    Raises:
        ValueError: if the chat template rejects it.
    """
    return token_ids(prompt_text(row, suite, args, tokenizer), tokenizer)


def token_ids(prompt: Prompt, tokenizer: Any) -> list[int]:
    """Token ids of a text, or of a conversation as the chat template writes it.

    Raises:
        ValueError: if there is no chat template, or it rejects the prompt.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    if not tokenizer.chat_template:
        raise ValueError(NO_TEMPLATE)
    try:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise ValueError(
            f"The chat template of the model rejects this prompt: {error}. Try without a system prompt."
        ) from error
    # The template has already added the special tokens.
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def completion_length(args: EvaluateArguments, task: Task, context: int | None) -> int:
    """Maximum completion length in tokens that fits after every prompt of a task.

    Raises:
        ValueError: if the requested length does not fit into the model's context.
    """
    limits = [limit for limit in (context, args.max_model_len) if limit is not None]
    requested = args.max_new_tokens
    if not limits:
        return requested or MAX_COMPLETION_LENGTH
    longest_prompt = max(map(len, task.prompts))
    available = min(limits) - longest_prompt
    if available < (requested or 1):
        raise ValueError(
            f"The model's context is {min(limits)} tokens and the longest prompt of {task.suite.title} has "
            f"{longest_prompt}, which leaves no room for {requested or 'any'} new tokens. Set max_new_tokens to at "
            f"most {max(available, 0)}, or extend the model's context."
        )
    return requested or min(MAX_COMPLETION_LENGTH, available)


def run_settings(args: EvaluateArguments, checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything that is known about a run before it starts: arguments, versions, device and weights."""
    packages = ["torch", "transformers", "trl", "peft", "math-verify"]
    if args.engine == "vllm":
        packages.append("vllm")
    resolved = {
        "batch_size": args.batch_size or BATCH_SIZES[args.engine],
        "dtype": resolve_dtype(args.dtype),
    }
    return {
        "settings": {name: value for name, value in asdict(args).items() if name != "output"} | resolved,
        "versions": versions_of(packages),
        "device": str(device().type),
        "weights": {part: _weights(name) for part, name in asdict(checkpoint).items() if name},
    }


def _weights(name: str) -> str | None:
    """Identifies the version of a checkpoint: its commit on the Hub, or a hash of its files' sizes and times."""
    if not Path(name).is_dir():
        config = try_to_load_from_cache(name, "config.json")
        return Path(config).parent.name if isinstance(config, str) else None
    files = [*Path(name).glob("*.safetensors"), *Path(name).glob("*.bin"), *Path(name).glob("*config.json")]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


# Settings that do not affect answers, or only through the prompts, which are compared separately.
_IRRELEVANT_SETTINGS = {
    *("suites", "benchmarks", "data", "split", "dataset_config", "samples", "pass_at"),
    *("gpu_memory_utilization", "max_model_len"),
}


def sampling_settings(task: Task, sampling: Sampling, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the answers to one task depend on; it must not change between a run and its resume."""
    content = json.dumps([task.prompts, [row["answer"] for row in task.problems]]).encode()
    return {
        **{
            name: value
            for name, value in settings["settings"].items()
            if name not in _IRRELEVANT_SETTINGS and (name, value) != ("verifier", DEFAULT_VERIFIER)
        },
        **{name: value for name, value in settings.items() if name != "settings"},
        **asdict(sampling),
        "samples": task.samples,
        "problems": len(task.problems),
        "prompts_and_answers": hashlib.sha256(content).hexdigest()[:16],
    }


def batch_seed(seed: int, task: str, batch: int) -> int:
    """A 32-bit seed for one batch, independent of what was sampled before it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {task} {batch}".encode()).digest()[:4])


def sample_task(
    task: Task, engine: Callable[[], Engine], sampling: Sampling, settings: dict[str, Any], args: EvaluateArguments
) -> list[Answer]:
    """All answers to one task: those on disk, and newly sampled and judged ones for the missing batches.

    Args:
        task: problems and prompts.
        engine: function that returns the engine; called only if a batch is missing.
        sampling: sampling parameters.
        settings: settings of the run, from `run_settings`.
        args: arguments of the evaluation.
    """
    batches = task.batches(settings["settings"]["batch_size"])
    folder = args.output_folder
    journal = (
        Journal(folder / "answers", task.name, sampling_settings(task, sampling, settings), batches) if folder else None
    )
    verifier = named_verifier(args.verifier)
    answers = [answer for batch in (journal.finished if journal else []) for answer in batch]
    num_finished = len(journal.finished) if journal else 0
    total = sum(map(len, batches))
    with tqdm(total=total, initial=len(answers), desc=task.suite.title, unit="answer") as bar:
        for number, batch in enumerate(batches[num_finished:], num_finished):
            start = time.monotonic()
            new_answers = _answer_batch(
                task, batch, engine(), sampling, batch_seed(args.seed, task.name, number), verifier
            )
            if journal:
                journal.append(new_answers)
            answers += new_answers
            tokens = sum(answer.tokens for answer in new_answers)
            bar.set_postfix_str(f"{tokens / (time.monotonic() - start):.0f} tokens/s", refresh=False)
            bar.update(len(new_answers))
    return answers


def _answer_batch(
    task: Task, batch: Sequence[tuple[int, int]], engine: Engine, sampling: Sampling, seed: int, verifier: Verifier
) -> list[Answer]:
    completions = engine.complete([task.prompts[problem] for problem, _ in batch], sampling, seed)
    rows = [task.problems[problem] for problem, _ in batch]
    columns = {name: [row.get(name) for row in rows] for name in rows[0]} | {
        "solution": [row["answer"] for row in rows]
    }
    opened = [task.opens_thinking[problem] for problem, _ in batch]
    if any(opened):
        columns[OPENS_THINKING] = opened
    prompts = [task.texts[problem] for problem, _ in batch]
    verdicts = verifier(prompts, [completion.text for completion in completions], columns)
    return [
        Answer(problem, sample, completion.text, completion.tokens, completion.cut, str(verdict))
        for (problem, sample), completion, verdict in zip(batch, completions, verdicts)
    ]
