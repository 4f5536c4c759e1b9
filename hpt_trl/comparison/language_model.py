"""A small comparison on a real language model and word problems: `python -m hpt_trl.comparison.language_model`.

The model is first trained with SFT on one-digit problems ("practice"), because otherwise it hardly ever boxes an
answer. The result is the base model of all methods, which then train on two-digit problems. All weights are trained: on
a CPU, LoRA is slower for a model this small.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

import hpt_trl
from hpt_trl.common.command_line import parse, user_errors
from hpt_trl.common.files import write_atomically
from hpt_trl.common.logs import say
from hpt_trl.comparison.budgets import TokenCounter
from hpt_trl.comparison.held_out_eval import is_correct
from hpt_trl.comparison.language_model_table import report_text
from hpt_trl.comparison.methods import METHODS, Phase, Recipe, build_trainer, describe, fresh_copy, phase_steps
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.runs import RESULT, TRAINER, clear_unfinished, read_result
from hpt_trl.comparison.sampler import sample
from hpt_trl.comparison.word_problems import word_problems
from hpt_trl.durability.gate_history import FILE_NAME as GATE_FILE

SYSTEM_PROMPT = "Box the answer."
_TEST_SEED = 1
# Keys of a run's result that the report needs; its other keys are settings, the same for all runs.
_REPORTED = (
    "method", "seed", "marks", "forwarded", "backwarded", "reward", "training_cpu_seconds", "exam_cpu_seconds",
)  # fmt: skip
# A temperature so low that the most likely token is always sampled.
_GREEDY_TEMPERATURE = 1e-4


@dataclass
class LanguageModelArguments:
    """
    The comparison on a real language model.

    Args:
        output_dir (`str`): Folder of the practiced model, the runs, `results.json` and `README.md`. If the command is
            started again, finished runs are reused and the missing ones are run.
    """

    model_name_or_path: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct", metadata={"help": "A chat model: a Hub id or a folder."}
    )
    output_dir: str = field(default="runs/smollm2_words", metadata={"help": "Folder of the runs and the report."})
    methods: list[str] = field(
        default_factory=lambda: ["base", "sft", "grpo", "sft_grpo", "hpt"],
        metadata={"help": f"Methods, from {', '.join(METHODS)}."},
    )
    seeds: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Seeds of data, order and rollouts."})
    steps: int = field(default=16, metadata={"help": "Optimizer steps per method."})
    prompts_per_step: int = field(default=4, metadata={"help": "Prompts per optimizer step."})
    num_generations: int = field(default=4, metadata={"help": "Rollouts per prompt."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of every method; constant."})
    training_problems: int = field(default=256, metadata={"help": "Training prompts, each with a demonstration."})
    longest_answer: int = field(
        default=16, metadata={"help": "Maximum tokens of an answer; the longest demonstration has 13."}
    )
    practice_steps: int = field(
        default=20, metadata={"help": "Steps of SFT on easy problems before any method; 0 to skip."}
    )
    practice_prompts: int = field(default=16, metadata={"help": "Problems per practice step."})
    practice_learning_rate: float = field(default=5e-5, metadata={"help": "Learning rate of the practice; constant."})
    test_problems: int = field(default=100, metadata={"help": "Held-out problems."})
    test_samples: int = field(
        default=2, metadata={"help": "Samples per test problem at temperature 1, besides a greedy one."}
    )
    matmul_bf16: bool = field(default=True, metadata={"help": "Compute in bfloat16; weights stay in float32."})

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods or not self.seeds:
            raise ValueError(
                f"methods must be from {', '.join(METHODS)}, with at least one seed; got {unknown or 'none'}."
            )
        for name in ("steps", "prompts_per_step", "practice_prompts", "test_problems", "test_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.training_problems < self.prompts_per_step:
            raise ValueError(
                f"training_problems ({self.training_problems}) must fill a step of {self.prompts_per_step} prompts."
            )

    @property
    def recipe(self) -> Recipe:
        """Settings that all methods share."""
        return Recipe(self.prompts_per_step, self.num_generations, self.steps, self.longest_answer, self.matmul_bf16)


def load_tokenizer(args: LanguageModelArguments) -> Any:
    """The model's tokenizer, with a pad token that never occurs in a chat, because `TokenCounter` skips pad tokens."""
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def chat_rows(tokenizer: Any, problems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Word problems with a `prompt` column rendered by the chat template."""
    system = {"role": "system", "content": SYSTEM_PROMPT}
    return [
        {
            "prompt": tokenizer.apply_chat_template(
                [system, {"role": "user", "content": problem["question"]}], tokenize=False, add_generation_prompt=True
            ),
            **problem,
        }
        for problem in problems
    ]


def practice(args: LanguageModelArguments, folder: Path) -> None:
    """Train on easy problems, save the model under `model`, and write its CPU time to `result.json`."""
    start = time.process_time()
    clear_unfinished(folder)
    set_seed(0)
    tokenizer, model = load_tokenizer(args), _load(args.model_name_or_path)
    if args.practice_steps:
        problems = word_problems(args.practice_steps * args.practice_prompts, 0, "train", is_hard=False)
        recipe = replace(args.recipe, prompts=args.practice_prompts)
        _train_phase(
            Phase("sft"), recipe, args.practice_steps, model, tokenizer, chat_rows(tokenizer, problems),
            args.practice_learning_rate, 0, folder / TRAINER,
        )  # fmt: skip
    model.save_pretrained(folder / "model")
    result = {"settings": practice_settings(args), "cpu_seconds": time.process_time() - start}
    write_atomically(folder / RESULT, json.dumps(result))


def execute(method: str, seed: int, args: LanguageModelArguments, base: Path, folder: Path) -> None:
    """Train, evaluate, and write `result.json` atomically."""
    start = time.process_time()
    clear_unfinished(folder)
    set_seed(seed)
    tokenizer, model = load_tokenizer(args), _load(base)
    counter = TokenCounter(tokenizer.pad_token_id)
    rows = chat_rows(tokenizer, word_problems(args.training_problems, seed, "train"))
    log: list[dict[str, Any]] = []
    remaining = args.steps
    for number, phase in enumerate(METHODS[method].phases):
        if remaining == 0:
            break
        if number:
            model = fresh_copy(model, base)
        counter.attach(model)
        steps = min(remaining, phase_steps(phase, args.steps))
        log += _train_phase(
            phase, args.recipe, steps, model, tokenizer, rows, args.learning_rate, seed, folder / TRAINER
        )
        remaining -= steps
    training_end = time.process_time()
    with counter.paused():
        eval_results = evaluate(model, tokenizer, args, seed)
    result = {
        "settings": run_settings(method, seed, args),
        "method": method,
        "seed": seed,
        "marks": eval_results,
        "forwarded": counter.forwarded,
        "backwarded": counter.backwarded,
        "reward": [round(entry["reward"], 4) for entry in log if "reward" in entry],
        "training_cpu_seconds": round(training_end - start, 1),
        "exam_cpu_seconds": round(time.process_time() - training_end, 1),
    }
    write_atomically(folder / RESULT, json.dumps(result))


def evaluate(model: Any, tokenizer: Any, args: LanguageModelArguments, seed: int) -> dict[str, Any]:
    """Correct samples of each held-out problem and their mean length, greedy and at temperature 1."""
    rows = chat_rows(tokenizer, word_problems(args.test_problems, _TEST_SEED, "test"))
    eval_results: dict[str, Any] = {}
    for name, samples, temperature in (("greedy", 1, _GREEDY_TEMPERATURE), ("sampled", args.test_samples, 1.0)):
        prompts = [row["prompt"] for row in rows for _ in range(samples)]
        with torch.autocast("cpu", torch.bfloat16, enabled=args.matmul_bf16):
            completions = sample(
                model, tokenizer, prompts, temperature=temperature, max_new_tokens=args.longest_answer, seed=seed
            )
        right = [
            is_correct(completion.text, rows[index // samples]["solution"])
            for index, completion in enumerate(completions)
        ]
        eval_results[name] = {
            "right": [sum(right[start : start + samples]) for start in range(0, len(right), samples)],
            "tokens": sum(completion.tokens for completion in completions) / len(completions),
            "texts": [completion.text for completion in completions[::samples]],
        }
    return eval_results


def practice_settings(args: LanguageModelArguments) -> dict[str, Any]:
    """Settings that the practiced model depends on. Only the last part of the model's path: the report is public."""
    names = ("practice_steps", "practice_prompts", "practice_learning_rate", "matmul_bf16")
    return {"model": Path(args.model_name_or_path).name, **{name: getattr(args, name) for name in names}}


def run_settings(method: str, seed: int, args: LanguageModelArguments) -> dict[str, Any]:
    """All settings that a run's result depends on."""
    irrelevant = {"model_name_or_path", "output_dir", "methods", "seeds"}
    settings = {name: value for name, value in asdict(args).items() if name not in irrelevant}
    return {"run": [method, seed], "phases": describe(method), **practice_settings(args), **settings}


def _train_phase(
    phase: Phase,
    recipe: Recipe,
    steps: int,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    learning_rate: float,
    seed: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """Train for `steps` optimizer steps. Returns the trainer's log."""
    trainer = build_trainer(phase, recipe, model, tokenizer, rows, learning_rate, seed, folder, callbacks=[])
    trainer.args.max_steps = steps
    trainer.train()
    return trainer.state.log_history


def _load(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def _result_of(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a task, which is run if it has not finished before."""
    result = read_result(task.folder, settings)
    if result is None and run_tasks(
        [task], processes=1, report_progress=lambda name: print(f"{name} done", flush=True)
    ):
        raise ValueError(
            f"{task.name} failed: see {task.folder / 'log.txt'}. Run the command again to continue after the last "
            "finished run."
        )
    return result or read_result(task.folder, settings) or {}


def _solve_rates(folder: Path) -> list[float]:
    """Solve rates of all prompts that a run's gate has seen, in order; empty without a gate."""
    path = folder / TRAINER / GATE_FILE
    return pd.read_parquet(path)["solve_rate"].tolist() if path.exists() else []


def compare(args: LanguageModelArguments) -> dict[str, Any]:
    """Practice, run every method with every seed, and return all results as JSON."""
    output = Path(args.output_dir)
    folder = output / "practised"
    practice_result = _result_of(Task("practice", folder, partial(practice, args, folder)), practice_settings(args))
    runs = []
    for seed in args.seeds:
        for method in args.methods:
            # The base model is the same for every seed.
            if METHODS[method].phases or seed == args.seeds[0]:
                run_folder = output / method / f"seed{seed}"
                work = partial(execute, method, seed, args, folder / "model", run_folder)
                task = Task(f"{method}, seed {seed}", run_folder, work)
                result = _result_of(task, run_settings(method, seed, args))
                runs.append({name: result[name] for name in _REPORTED} | {"solve_rates": _solve_rates(run_folder)})
    problems = word_problems(args.test_problems, _TEST_SEED, "test")
    return {
        "settings": run_settings("hpt", 0, args) | {"seeds": args.seeds},
        "versions": {"hpt_trl": hpt_trl.__version__}
        | {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
        "practice_cpu_seconds": practice_result["cpu_seconds"],
        "kinds": [problem["kind"] for problem in problems],
        "runs": runs,
    }


def main(argv: Sequence[str]) -> None:
    """Run the command line `python -m hpt_trl.comparison.language_model`."""
    prog = "python -m hpt_trl.comparison.language_model"
    # Forks inherit no threads.
    torch.set_num_threads(1)
    with user_errors(prog):
        (args,) = parse((LanguageModelArguments,), argv, prog)
        results = compare(args)
        output = Path(args.output_dir)
        write_atomically(output / "results.json", json.dumps(results, indent=1))
        write_atomically(output / "README.md", report_text(results))
        say(f"Report: {output / 'README.md'}")


if __name__ == "__main__":
    main(sys.argv[1:])
