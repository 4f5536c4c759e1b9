"""Suites -> prompts -> judged answers, batch by batch, from where an earlier run stopped.

A batch is the same prompts with the same seed, whatever was done before it: so a run that is killed and started again
gives the answers of one that was not.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from jinja2 import TemplateError
from tqdm.auto import tqdm

from hpt_trl.common.versions import versions_of
from hpt_trl.data.benchmarks import SUITES, Suite, as_prompt, load_problems, load_suite, select_suites
from hpt_trl.evaluation.arguments import BATCH_SIZES, LONGEST_COMPLETION, EvaluateArguments
from hpt_trl.evaluation.engines import Checkpoint, Engine, Sampling, device, resolve_dtype
from hpt_trl.evaluation.journal import Journal
from hpt_trl.evaluation.scores import Answer
from hpt_trl.verifier.verdicts import judge


@dataclass(frozen=True)
class Task:
    """The problems of one suite, ready to be sampled.

    Args:
        name: key of the suite, also of its files.
        suite: its title, group and instruction.
        problems: rows with `answer`, and `problem` or `prompt`.
        prompts: token ids of each problem's prompt.
        samples: completions a problem.
    """

    name: str
    suite: Suite
    problems: list[dict[str, Any]]
    prompts: list[list[int]]
    samples: int

    def batches(self, size: int) -> list[list[tuple[int, int]]]:
        """(problem, sample) of each batch: prompts of like length together, so that little is padded."""
        # The longest first: what does not fit into memory shows at once, not after hours.
        order = sorted(range(len(self.prompts)), key=lambda problem: -len(self.prompts[problem]))
        requests = [(problem, sample) for problem in order for sample in range(self.samples)]
        return [requests[start : start + size] for start in range(0, len(requests), size)]


def load_tasks(args: EvaluateArguments, tokenizer: Any) -> tuple[dict[str, Task], list[str]]:
    """The problems of every suite and of the data, as prompts; and what was left out.

    Raises:
        ValueError: if there is no problem, or an instruction for prompts that go as they are.
    """
    names, left_out = select_suites(args.suites or [], args.benchmarks)
    sources = {name: (SUITES[name], load_suite(name, args.benchmarks)) for name in names}
    if args.data:
        name = re.sub(r"[^\w.-]+", "_", args.data).strip("_.") or "data"
        suite = Suite("/".join(Path(args.data).parts[-2:]), args.data, args.split, samples=1, size=0, group="")
        sources[f"data_{name}"] = suite, load_problems(args.data, args.split, args.dataset_config)
    tasks = {}
    for name, (suite, rows) in sources.items():
        problems = rows[: args.limit]
        if not problems:
            raise ValueError(f"{suite.title!r} holds no problem in split {suite.split!r}.")
        if "prompt" in problems[0] and (args.instruction is not None or args.system_prompt is not None):
            raise ValueError(f"{suite.title!r} brings its prompts: instruction and system_prompt would be ignored.")
        prompts = [prompt_ids(row, suite, args, tokenizer) for row in problems]
        tasks[name] = Task(name, suite, problems, prompts, args.samples or suite.samples)
    notes = [f"Left out, no file in {args.benchmarks}: {', '.join(left_out)}."] if left_out else []
    return tasks, notes


def prompt_ids(row: dict[str, Any], suite: Suite, args: EvaluateArguments, tokenizer: Any) -> list[int]:
    """Token ids of a problem's prompt.

    Raises:
        ValueError: if the chat template does not take it.
    """
    instruction = suite.instruction if args.instruction is None else args.instruction
    prompt = as_prompt(row, instruction, args.system_prompt, chat=tokenizer.chat_template is not None)
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    try:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise ValueError(
            f"The model's chat template does not take this prompt: {error}. Try no system_prompt."
        ) from error
    # The template writes the special tokens itself.
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def completion_length(args: EvaluateArguments, task: Task, context: int | None) -> int:
    """Longest completion in tokens that fits behind every prompt of a task.

    Raises:
        ValueError: if the model's context has no room for what was asked for.
    """
    limits = [limit for limit in (context, args.max_model_len) if limit is not None]
    wanted = args.max_new_tokens
    if not limits:
        return wanted or LONGEST_COMPLETION
    longest_prompt = max(map(len, task.prompts))
    room = min(limits) - longest_prompt
    if room < (wanted or 1):
        raise ValueError(
            f"The model takes {min(limits)} tokens and the longest prompt of {task.suite.title} has {longest_prompt}: "
            f"no room for {wanted or 'any'} new tokens. Ask for at most {max(room, 0)}, or extend the model's context."
        )
    return wanted or min(LONGEST_COMPLETION, room)


def run_settings(args: EvaluateArguments, checkpoint: Checkpoint) -> dict[str, Any]:
    """All that is known of a run before it starts: arguments, versions, and which weights."""
    packages = ["torch", "transformers", "trl", "peft", "math-verify", *["vllm"] * (args.engine == "vllm")]
    chosen = {
        "batch_size": args.batch_size or BATCH_SIZES[args.engine],
        "dtype": resolve_dtype(args.dtype),
    }
    return {
        "settings": {name: value for name, value in asdict(args).items() if name != "output"} | chosen,
        "versions": versions_of(packages),
        "device": str(device().type),
        "weights": {part: _weights(name) for part, name in asdict(checkpoint).items() if name},
    }


def _weights(name: str) -> str | None:
    """What tells a checkpoint from a later one of the same name: its commit, or its files' sizes and times."""
    if not Path(name).is_dir():
        config = try_to_load_from_cache(name, "config.json")
        return Path(config).parent.name if isinstance(config, str) else None
    files = [*Path(name).glob("*.safetensors"), *Path(name).glob("*.bin"), *Path(name).glob("*config.json")]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


# These change no answer, or only through the prompts, which are compared themselves.
_FREE_SETTINGS = {
    *("suites", "benchmarks", "data", "split", "dataset_config", "samples", "pass_at"),
    *("gpu_memory_utilization", "max_model_len"),
}


def sampling_settings(task: Task, sampling: Sampling, settings: dict[str, Any]) -> dict[str, Any]:
    """What the answers to one task depend on: nothing of it may change between a run and its resume."""
    content = json.dumps([task.prompts, [row["answer"] for row in task.problems]]).encode()
    return {
        **{name: value for name, value in settings["settings"].items() if name not in _FREE_SETTINGS},
        **{name: value for name, value in settings.items() if name != "settings"},
        **asdict(sampling),
        "samples": task.samples,
        "problems": len(task.problems),
        "prompts_and_answers": hashlib.sha256(content).hexdigest()[:16],
    }


def batch_seed(seed: int, task: str, batch: int) -> int:
    """A seed of 32 bits for one batch, whatever was sampled before it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {task} {batch}".encode()).digest()[:4])


def sample_task(
    task: Task, engine: Callable[[], Engine], sampling: Sampling, settings: dict[str, Any], args: EvaluateArguments
) -> list[Answer]:
    """All answers to one task: those on disk, and the missing ones sampled and judged.

    Args:
        task: its problems and prompts.
        engine: gives the model; called if a batch is missing.
        sampling, settings, args: of the run.
    """
    batches = task.batches(settings["settings"]["batch_size"])
    folder = args.output_folder
    journal = (
        Journal(folder / "answers", task.name, sampling_settings(task, sampling, settings), batches) if folder else None
    )
    answers = [answer for batch in (journal.finished if journal else []) for answer in batch]
    first = len(journal.finished) if journal else 0
    total = sum(map(len, batches))
    with tqdm(total=total, initial=len(answers), desc=task.suite.title, unit="answer") as bar:
        for number, batch in enumerate(batches[first:], first):
            start = time.monotonic()
            made = _answer_batch(task, batch, engine(), sampling, batch_seed(args.seed, task.name, number))
            if journal:
                journal.append(made)
            answers += made
            tokens = sum(answer.tokens for answer in made)
            bar.set_postfix_str(f"{tokens / (time.monotonic() - start):.0f} tokens/s", refresh=False)
            bar.update(len(made))
    return answers


def _answer_batch(
    task: Task, batch: Sequence[tuple[int, int]], engine: Engine, sampling: Sampling, seed: int
) -> list[Answer]:
    completions = engine.complete([task.prompts[problem] for problem, _ in batch], sampling, seed)
    verdicts = judge([one.text for one in completions], [task.problems[problem]["answer"] for problem, _ in batch])
    return [
        Answer(problem, sample, one.text, one.tokens, one.cut, str(verdict))
        for (problem, sample), one, verdict in zip(batch, completions, verdicts)
    ]
