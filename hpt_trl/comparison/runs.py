"""One run: trains a base model with one method, evaluates it, and writes the result to its own folder."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hpt_trl.common.files import write_atomically
from hpt_trl.comparison.budgets import BudgetCallback, TokenCounter
from hpt_trl.comparison.held_out_eval import HeldOutEval
from hpt_trl.comparison.methods import (
    ABLATIONS,
    METHODS,
    Phase,
    Recipe,
    build_trainer,
    describe,
    fresh_copy,
    phase_steps,
)
from hpt_trl.comparison.regimes import REGIMES, regime_rows, with_few_demonstrations
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.miniature.bases import fingerprint
from hpt_trl.miniature.families import training_rows

RESULT = "result.json"
CONFIG = "config.json"
TRAINER = "trainer"
MAP_STAGE = "map/"
"""Stage of the runs in a regime, before the regime's name."""


@dataclass(frozen=True)
class Run:
    """One method on one base model with one seed.

    Args:
        stage: "search", "main", "ablation", "textbook", or "map/" and a regime.
        model: name of the base model.
        method: name of the method or ablation.
        seed: seed of the data, their order and the rollouts.
        learning_rate: learning rate of the last phase.
        first_learning_rate: learning rate of the phase before it, or of its warm-up, if there is one.
        has_passes: whether to measure pass@k.
    """

    stage: str
    model: str
    method: str
    seed: int
    learning_rate: float
    first_learning_rate: float | None = None
    has_passes: bool = False

    @property
    def name(self) -> str:
        """Path of its folder, relative to the folder of all runs."""
        rate = f"_lr{self.learning_rate:g}" if self.stage == "search" else ""
        return f"{self.stage}/{self.model}/{self.method}{rate}/seed{self.seed}"


def run_settings(run: Run, args: CompareArguments) -> dict[str, Any]:
    """All settings that a run's result depends on."""
    irrelevant = {"output_dir", "models", "methods", "seeds", "search_seeds", "learning_rates", "ablations",
                  "regimes", "textbook", "small", "processes"}  # fmt: skip
    settings = {name: value for name, value in asdict(args).items() if name not in irrelevant}
    if args.demonstrations is None:
        del settings["demonstrations"]  # runs from before the option have the same settings
    return {"run": asdict(run), "phases": describe(run.method), "base": fingerprint(run.model), **settings}


def read_result(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a finished run; None if the run has not finished.

    Raises:
        ValueError: if the run used other settings.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    expected = json.loads(json.dumps(settings))
    if result["settings"] != expected:
        changed = [key for key in expected if result["settings"].get(key) != expected[key]]
        raise ValueError(
            f"{str(folder)!r} contains a run with other settings ({', '.join(changed)}): choose another output_dir or "
            "delete this folder."
        )
    return result


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed run left in its folder: it starts again, and a trainer does not start over another run."""
    shutil.rmtree(folder / TRAINER, ignore_errors=True)


def execute(run: Run, args: CompareArguments, base: Path, folder: Path) -> None:
    """Train, evaluate, and write `result.json` atomically.

    Args:
        run: method, base model and seed.
        args: settings of the comparison.
        base: folder of the base model.
        folder: folder of this run.
    """
    start = time.time()
    settings = run_settings(run, args)
    clear_unfinished(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, json.dumps(settings, indent=1))
    set_seed(run.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    eval_results: dict[str, Any] = {}
    callback = _budget_callback(run, args, tokenizer, eval_results)
    log = _train(run, args, base, folder, tokenizer, callback)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    shares = [entry["hpt/demonstration_share"] for entry in log if "hpt/demonstration_share" in entry]
    result = {
        "settings": settings,
        "curve": callback.points,
        "spent": callback.spent,
        "marks": eval_results,
        "demonstration_share": shares,
        "seconds": round(time.time() - start, 1),
    }
    write_atomically(folder / RESULT, json.dumps(result))


def _budget_callback(run: Run, args: CompareArguments, tokenizer: Any, eval_results: dict[str, Any]) -> BudgetCallback:
    """The callback that fills `eval_results` whenever a budget is spent."""
    is_search = run.stage == "search"
    curve_eval = HeldOutEval(args.curve_problems, 2 if is_search else 1, args.temperature)
    test = HeldOutEval(args.test_problems, args.test_samples, args.temperature, skip=args.curve_problems)
    as_rollouts = HeldOutEval(args.test_problems, args.test_samples, 1.0, skip=args.curve_problems)
    passes = HeldOutEval(max(1, args.pass_problems), args.pass_samples, args.temperature, skip=args.curve_problems)

    def at_budget(budget: str, model: Any) -> None:
        evals = {} if is_search else {budget: test}
        if run.has_passes and budget == "compute":
            evals["passes"] = passes
        if run.method == "base" and budget == "steps":
            evals["rollouts"] = as_rollouts
        for name, held_out_eval in evals.items():
            eval_results[name] = asdict(held_out_eval.evaluate(model, tokenizer, run.seed))

    return BudgetCallback(
        TokenCounter(tokenizer.pad_token_id),
        tokenizer,
        curve_eval,
        curve_every=args.curve_every,
        steps=args.steps,
        compute=None if is_search else args.compute,
        at_budget=at_budget,
        seed=run.seed,
    )


def _training_rows(run: Run, args: CompareArguments) -> list[dict[str, Any]]:
    if run.stage.startswith(MAP_STAGE):
        return regime_rows(REGIMES[run.stage.removeprefix(MAP_STAGE)], args.training_problems, run.seed)
    rows = training_rows(args.training_problems, run.seed, textbook=run.stage == "textbook")
    return rows if args.demonstrations is None else with_few_demonstrations(rows, args.demonstrations, run.seed)


def _train(
    run: Run, args: CompareArguments, base: Path, folder: Path, tokenizer: Any, callback: BudgetCallback
) -> list[dict[str, Any]]:
    """Train all phases of a method in sequence. Returns the trainers' logs."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    callback.add_curve_point(model)
    phases = (METHODS | ABLATIONS)[run.method].phases
    if not phases:
        for budget in ("steps", "compute"):
            callback.at_budget(budget, model)
    recipe = Recipe(args.prompts_per_step, args.num_generations, args.steps)
    rates = (run.first_learning_rate, run.learning_rate)
    return train_phases(
        phases, recipe, model, base, tokenizer, _training_rows(run, args), rates, run.seed, folder / TRAINER, callback
    )


def train_phases(
    phases: Sequence[Phase],
    recipe: Recipe,
    model: Any,
    base: Path,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    learning_rates: tuple[float | None, float],
    seed: int,
    folder: Path,
    callback: BudgetCallback,
) -> list[dict[str, Any]]:
    """Train all phases in sequence until the budgets of the callback are spent.

    Args:
        phases: the phases of a method.
        recipe: settings that all methods share.
        model: the base model; a copy of it is trained.
        base: folder of the base model.
        tokenizer: its tokenizer.
        rows: data with the columns `prompt`, `demonstration` and `solution`.
        learning_rates: of the phases before the last or of the warm-up (None if there are none), and of the last.
        seed: seed of the data order and the rollouts.
        folder: output folder of the trainers.
        callback: stops each phase.

    Returns:
        The trainers' logs.
    """
    first_rate, last_rate = learning_rates
    log: list[dict[str, Any]] = []
    for number, phase in enumerate(phases, 1):
        is_last = number == len(phases)
        callback.phase_end = None if is_last else phase_steps(phase, recipe.steps)
        model = fresh_copy(model, base)
        callback.counter.attach(model)
        trainer = build_trainer(
            phase, recipe, model, tokenizer, rows, last_rate if is_last else float(first_rate or 0), seed, folder,
            [callback], warmup_learning_rate=first_rate,
        )  # fmt: skip
        trainer.train()
        log += [{"phase": phase.trainer, **entry} for entry in trainer.state.log_history]
    return log
