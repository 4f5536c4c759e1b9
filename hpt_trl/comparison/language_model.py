"""A small comparison on a real language model and word problems: `python -m hpt_trl.comparison.language_model`.

The model first practises problems with single digits, for without that it hardly ever boxes an answer; what it is then
is the base of every method, which learns from problems with two digits. All weights are trained: on a CPU, LoRA on top
of so small a model is the slower way.
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
from hpt_trl.comparison.exam import is_right
from hpt_trl.comparison.language_model_table import report_text
from hpt_trl.comparison.methods import METHODS, Phase, Recipe, build_trainer, describe, fresh_copy, phase_steps
from hpt_trl.comparison.pool import Task, run_tasks
from hpt_trl.comparison.progress import Meter
from hpt_trl.comparison.runs import RESULT, read_result
from hpt_trl.comparison.sampler import draw
from hpt_trl.comparison.word_problems import word_problems
from hpt_trl.durability.gate_history import FILE_NAME as GATE_FILE

SYSTEM_PROMPT = "Box the answer."
# Of the exam, which no training draws.
_EXAM_SEED = 1
# Of a run's result; the rest are its settings, the same for all.
_REPORTED = (
    "method", "seed", "marks", "forwarded", "backwarded", "reward", "training_cpu_seconds", "exam_cpu_seconds",
)  # fmt: skip
# Below it, the likeliest token is always drawn.
_GREEDY = 1e-4


@dataclass
class LanguageModelArguments:
    """
    The comparison on a real language model.

    Args:
        output_dir (`str`): folder of the practised model, of every run, and of `results.json` and `README.md`. Started
            again, what is there is taken and the rest is done.
    """

    model_name_or_path: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct", metadata={"help": "A chat model, from the Hub or a folder."}
    )
    output_dir: str = field(default="runs/smollm2_words", metadata={"help": "Folder for runs and the report."})
    methods: list[str] = field(
        default_factory=lambda: ["base", "sft", "grpo", "sft_grpo", "hpt"],
        metadata={"help": f"Methods, of {', '.join(METHODS)}."},
    )
    seeds: list[int] = field(default_factory=lambda: [1, 2], metadata={"help": "Of data, order and rollouts."})
    steps: int = field(default=16, metadata={"help": "Optimizer steps of every method."})
    prompts_per_step: int = field(default=4, metadata={"help": "Prompts of an optimizer step."})
    num_generations: int = field(default=4, metadata={"help": "Rollouts of a prompt."})
    learning_rate: float = field(default=1e-5, metadata={"help": "Of every method; constant."})
    training_problems: int = field(default=256, metadata={"help": "Training prompts, each with a demonstration."})
    longest_answer: int = field(default=16, metadata={"help": "Tokens; the longest demonstration has 13."})
    practice_steps: int = field(default=20, metadata={"help": "Of SFT on easy problems, before any method; 0: none."})
    practice_prompts: int = field(default=16, metadata={"help": "Problems of a practice step."})
    practice_learning_rate: float = field(default=5e-5, metadata={"help": "Constant."})
    test_problems: int = field(default=100, metadata={"help": "Held out."})
    test_samples: int = field(default=2, metadata={"help": "Completions of each at temperature 1; one is greedy."})
    matmul_bf16: bool = field(default=True, metadata={"help": "Multiply in bfloat16; weights stay float32."})

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods or not self.seeds:
            raise ValueError(
                f"methods must be of {', '.join(METHODS)}, with one seed at least; got {unknown or 'none'}."
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
        """What all methods share."""
        return Recipe(self.prompts_per_step, self.num_generations, self.steps, self.longest_answer, self.matmul_bf16)


def load_tokenizer(args: LanguageModelArguments) -> Any:
    """The model's tokenizer, whose padding is no token of the chat's: what is counted must tell them apart."""
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def chat_rows(tokenizer: Any, problems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Word problems as the chat model is asked them, under `prompt`."""
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


def practise(args: LanguageModelArguments, folder: Path) -> None:
    """Teach the form and the easy problems, and save the model under `model` and what it cost as a result."""
    began = time.process_time()
    set_seed(0)
    tokenizer, model = load_tokenizer(args), _load(args.model_name_or_path)
    if args.practice_steps:
        problems = word_problems(args.practice_steps * args.practice_prompts, 0, "train", is_hard=False)
        recipe = replace(args.recipe, prompts=args.practice_prompts)
        _train_phase(
            Phase("sft"), recipe, args.practice_steps, model, tokenizer, chat_rows(tokenizer, problems),
            args.practice_learning_rate, 0, folder / "trainer",
        )  # fmt: skip
    model.save_pretrained(folder / "model")
    result = {"settings": practice_settings(args), "cpu_seconds": time.process_time() - began}
    write_atomically(folder / RESULT, json.dumps(result))


def execute(method: str, seed: int, args: LanguageModelArguments, base: Path, folder: Path) -> None:
    """Train, measure, and write `result.json` whole, or nothing."""
    began = time.process_time()
    set_seed(seed)
    tokenizer, model = load_tokenizer(args), _load(base)
    meter = Meter(tokenizer.pad_token_id)
    rows = chat_rows(tokenizer, word_problems(args.training_problems, seed, "train"))
    log: list[dict[str, Any]] = []
    left = args.steps
    for number, phase in enumerate(METHODS[method].phases):
        if left == 0:
            break
        if number:
            model = fresh_copy(model, base)
        meter.watch(model)
        steps = min(left, phase_steps(phase, args.steps))
        log += _train_phase(
            phase, args.recipe, steps, model, tokenizer, rows, args.learning_rate, seed, folder / "trainer"
        )
        left -= steps
    trained = time.process_time()
    with meter.paused():
        marks = take_exam(model, tokenizer, args, seed)
    result = {
        "settings": run_settings(method, seed, args),
        "method": method,
        "seed": seed,
        "marks": marks,
        "forwarded": meter.forwarded,
        "backwarded": meter.backwarded,
        "reward": [round(entry["reward"], 4) for entry in log if "reward" in entry],
        "training_cpu_seconds": round(trained - began, 1),
        "exam_cpu_seconds": round(time.process_time() - trained, 1),
    }
    write_atomically(folder / RESULT, json.dumps(result))


def take_exam(model: Any, tokenizer: Any, args: LanguageModelArguments, seed: int) -> dict[str, Any]:
    """How many samples of each held-out problem are right, greedy and at temperature 1, and how long they are."""
    rows = chat_rows(tokenizer, word_problems(args.test_problems, _EXAM_SEED, "test"))
    marks: dict[str, Any] = {}
    for name, samples, temperature in (("greedy", 1, _GREEDY), ("sampled", args.test_samples, 1.0)):
        prompts = [row["prompt"] for row in rows for _ in range(samples)]
        with torch.autocast("cpu", torch.bfloat16, enabled=args.matmul_bf16):
            drawn = draw(
                model, tokenizer, prompts, temperature=temperature, max_new_tokens=args.longest_answer, seed=seed
            )
        right = [is_right(one.text, rows[place // samples]["solution"]) for place, one in enumerate(drawn)]
        marks[name] = {
            "right": [sum(right[start : start + samples]) for start in range(0, len(right), samples)],
            "tokens": sum(one.tokens for one in drawn) / len(drawn),
            "texts": [one.text for one in drawn[::samples]],
        }
    return marks


def practice_settings(args: LanguageModelArguments) -> dict[str, Any]:
    """What the practised model depends on. Of the model's path its last part: folders are nobody's business."""
    names = ("practice_steps", "practice_prompts", "practice_learning_rate", "matmul_bf16")
    return {"model": Path(args.model_name_or_path).name, **{name: getattr(args, name) for name in names}}


def run_settings(method: str, seed: int, args: LanguageModelArguments) -> dict[str, Any]:
    """All that a run's result depends on."""
    free = {"model_name_or_path", "output_dir", "methods", "seeds"}
    settings = {name: value for name, value in asdict(args).items() if name not in free}
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
    """So many optimizer steps. Returns the trainer's log."""
    trainer = build_trainer(phase, recipe, model, tokenizer, rows, learning_rate, seed, folder, callbacks=[])
    trainer.args.max_steps = steps
    trainer.train()
    return trainer.state.log_history


def _load(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def _do(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a task, done now if it was not done before."""
    result = read_result(task.folder, settings)
    if result is None and run_tasks([task], processes=1, tell=lambda name: print(f"{name} done", flush=True)):
        raise ValueError(f"{task.name} failed: see {task.folder / 'log.txt'}. Started again, what is done is kept.")
    return result or read_result(task.folder, settings) or {}


def _solve_rates(folder: Path) -> list[float]:
    """Of every prompt that a run's gate judged, in their order; empty where there is no gate."""
    path = folder / "trainer" / GATE_FILE
    return pd.read_parquet(path)["solve_rate"].tolist() if path.exists() else []


def compare(args: LanguageModelArguments) -> dict[str, Any]:
    """Practise, run every method with every seed, and return it all in JSON's types."""
    output = Path(args.output_dir)
    folder = output / "practised"
    practised = _do(Task("practice", folder, partial(practise, args, folder)), practice_settings(args))
    runs = []
    for seed in args.seeds:
        for method in args.methods:
            # What is not trained is the same with every seed.
            if METHODS[method].phases or seed == args.seeds[0]:
                place = output / method / f"seed{seed}"
                work = partial(execute, method, seed, args, folder / "model", place)
                result = _do(Task(f"{method}, seed {seed}", place, work), run_settings(method, seed, args))
                runs.append({name: result[name] for name in _REPORTED} | {"solve_rates": _solve_rates(place)})
    problems = word_problems(args.test_problems, _EXAM_SEED, "test")
    return {
        "settings": run_settings("hpt", 0, args) | {"seeds": args.seeds},
        "versions": {"hpt_trl": hpt_trl.__version__}
        | {name: metadata.version(name) for name in ("torch", "transformers", "trl")},
        "practice_cpu_seconds": practised["cpu_seconds"],
        "kinds": [problem["kind"] for problem in problems],
        "runs": runs,
    }


def main(argv: Sequence[str]) -> None:
    """Run the command line `python -m hpt_trl.comparison.language_model`."""
    prog = "python -m hpt_trl.comparison.language_model"
    # One thread: forks inherit no others.
    torch.set_num_threads(1)
    with user_errors(prog):
        (args,) = parse((LanguageModelArguments,), argv, prog)
        results = compare(args)
        output = Path(args.output_dir)
        write_atomically(output / "results.json", json.dumps(results, indent=1))
        write_atomically(output / "README.md", report_text(results))
        print(f"The report is {output / 'README.md'}.")


if __name__ == "__main__":
    main(sys.argv[1:])
