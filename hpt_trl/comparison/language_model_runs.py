"""One run of the comparison on a real language model: practice, training, evaluation."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hpt_trl.common.files import write_atomically
from hpt_trl.comparison.budgets import BudgetCallback, TokenCounter
from hpt_trl.comparison.held_out_eval import is_correct
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.methods import METHODS, UNLIMITED_STEPS, Phase, build_trainer, describe
from hpt_trl.comparison.regimes import with_few_demonstrations
from hpt_trl.comparison.runs import RESULT, TRAINER, clear_unfinished, train_phases
from hpt_trl.comparison.sampler import sample
from hpt_trl.comparison.word_problems import word_problems

SYSTEM_PROMPT = "Box the answer."
_TEST_SEED = 1


@dataclass(frozen=True)
class Run:
    """One method with one seed.

    Args:
        stage: "search" or "main".
        method: name of the method.
        seed: seed of the data, their order and the rollouts.
        learning_rate: learning rate of the last phase.
        first_learning_rate: learning rate of the phase before it, or of its warm-up, if there is one.
    """

    stage: str
    method: str
    seed: int
    learning_rate: float
    first_learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Path of its folder, relative to the output folder."""
        rate = f"_lr{self.learning_rate:g}" if self.stage == "search" else ""
        return f"{self.stage}/{self.method}{rate}/seed{self.seed}"


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


def held_out_problems(args: LanguageModelArguments, stage: str) -> list[dict[str, str]]:
    """The held-out problems of a stage. Those of the search are not among the reported ones."""
    problems = word_problems(args.test_problems + args.search_problems, _TEST_SEED, "test")
    return problems[args.test_problems :] if stage == "search" else problems[: args.test_problems]


def practice(args: LanguageModelArguments, folder: Path) -> None:
    """Train on easy problems, save the model under `model`, and write its CPU time to `result.json`."""
    start = time.process_time()
    clear_unfinished(folder)
    set_seed(0)
    tokenizer, model = load_tokenizer(args), _load(args.model_name_or_path)
    if args.practice_steps:
        problems = word_problems(args.practice_steps * args.practice_prompts, 0, "train", is_hard=False)
        trainer = build_trainer(
            Phase("sft"), replace(args.recipe, prompts=args.practice_prompts), model, tokenizer,
            chat_rows(tokenizer, problems), args.practice_learning_rate, 0, folder / TRAINER, callbacks=[],
        )  # fmt: skip
        trainer.args.max_steps = args.practice_steps
        trainer.train()
    model.save_pretrained(folder / "model")
    result = {"settings": practice_settings(args), "cpu_seconds": time.process_time() - start}
    write_atomically(folder / RESULT, json.dumps(result))


def phases_of(method: str, args: LanguageModelArguments) -> list[Phase]:
    """The phases of a method at these settings: a warm-up has at most half of the steps, a demonstration of HPT the
    weight of one rollout."""
    phases = []
    for phase in METHODS[method].phases:
        options = dict(phase.options)
        if "sft_weight" in options:
            options["sft_weight"] = 1 / args.num_generations
        if phase.has_warmup and options["sft_warmup_steps"] < UNLIMITED_STEPS:
            options["sft_warmup_steps"] = max(1, args.steps // 2)
        phases.append(replace(phase, options=options))
    return phases


def execute(run: Run, args: LanguageModelArguments, base: Path, folder: Path) -> None:
    """Train, evaluate, and write `result.json` atomically."""
    start = time.process_time()
    clear_unfinished(folder)
    set_seed(run.seed)
    tokenizer, model = load_tokenizer(args), _load(base)
    eval_results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    counter = TokenCounter(tokenizer.pad_token_id)

    def at_budget(budget: str, model: Any) -> None:
        begin = time.process_time()
        eval_results[budget] = evaluate(model, tokenizer, args, run)
        seconds[budget] = time.process_time() - begin

    callback = BudgetCallback(
        counter, tokenizer, curve_eval=None, curve_every=args.steps, steps=args.steps,
        compute=None if run.stage == "search" else args.compute, at_budget=at_budget, seed=run.seed,
    )  # fmt: skip
    phases = phases_of(run.method, args)
    if not phases:
        at_budget("steps", model)
        eval_results["compute"] = eval_results["steps"]
    rows = with_few_demonstrations(
        chat_rows(tokenizer, word_problems(args.training_problems, run.seed, "train")), args.demonstrations, run.seed
    )
    log = train_phases(
        phases, args.recipe, model, base, tokenizer, rows, (run.first_learning_rate, run.learning_rate), run.seed,
        folder / TRAINER, callback,
    )  # fmt: skip
    evaluation = sum(seconds.values())
    result = {
        "settings": run_settings(run, args),
        "run": asdict(run),
        "spent": callback.spent,
        "marks": eval_results,
        "reward": [round(entry["reward"], 4) for entry in log if "reward" in entry],
        "demonstration_share": [
            round(entry["hpt/demonstration_share"], 4) for entry in log if "hpt/demonstration_share" in entry
        ],
        "training_cpu_seconds": round(time.process_time() - start - evaluation, 1),
        "evaluation_cpu_seconds": round(evaluation, 1),
    }
    write_atomically(folder / RESULT, json.dumps(result))


def evaluate(model: Any, tokenizer: Any, args: LanguageModelArguments, run: Run) -> dict[str, Any]:
    """Correct samples of each held-out problem at temperature 1, their mean length, and the first sample of each."""
    rows, samples = chat_rows(tokenizer, held_out_problems(args, run.stage)), args.test_samples
    prompts = [row["prompt"] for row in rows for _ in range(samples)]
    with torch.autocast("cpu", torch.bfloat16, enabled=args.matmul_bf16):
        completions = sample(
            model, tokenizer, prompts, temperature=1.0, max_new_tokens=args.longest_answer, seed=run.seed
        )
    right = [
        is_correct(completion.text, rows[index // samples]["solution"]) for index, completion in enumerate(completions)
    ]
    return {
        "right": [sum(right[start : start + samples]) for start in range(0, len(right), samples)],
        "tokens": sum(completion.tokens for completion in completions) / len(completions),
        "texts": [completion.text for completion in completions[::samples]],
    }


def practice_settings(args: LanguageModelArguments) -> dict[str, Any]:
    """Settings that the practiced model depends on. Only the last part of the model's path: the report is public."""
    names = ("practice_steps", "practice_prompts", "practice_learning_rate", "matmul_bf16")
    return {"model": Path(args.model_name_or_path).name, **{name: getattr(args, name) for name in names}}


def run_settings(run: Run, args: LanguageModelArguments) -> dict[str, Any]:
    """All settings that a run's result depends on."""
    irrelevant = {"model_name_or_path", "output_dir", "methods", "seeds", "search_seeds", "learning_rates", "processes"}
    settings = {name: value for name, value in asdict(args).items() if name not in irrelevant}
    return {"run": asdict(run), "phases": describe(run.method), **practice_settings(args), **settings}


def _load(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
