"""One run, from a base model to its marks, in a folder of its own."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hpt_trl.common.files import write_atomically
from hpt_trl.comparison.exam import Exam
from hpt_trl.comparison.methods import (
    ABLATIONS,
    METHODS,
    Recipe,
    build_trainer,
    describe,
    fresh_copy,
    phase_steps,
)
from hpt_trl.comparison.progress import Meter, Progress
from hpt_trl.comparison.settings import CompareArguments
from hpt_trl.miniature.bases import fingerprint
from hpt_trl.miniature.families import training_rows

RESULT = "result.json"
CONFIG = "config.json"


@dataclass(frozen=True)
class Run:
    """One method on one base model with one seed.

    Args:
        stage: "search", "main", "ablation" or "textbook".
        model, method: names of a base and of a method or ablation.
        seed: of the data, their order and the rollouts.
        learning_rate: of the last phase.
        first_learning_rate: of the phase before it, if there is one.
        has_passes: whether pass@k is measured too.
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
        """Where it is, below the folder of all runs."""
        rate = f"_lr{self.learning_rate:g}" if self.stage == "search" else ""
        return f"{self.stage}/{self.model}/{self.method}{rate}/seed{self.seed}"


def run_settings(run: Run, args: CompareArguments) -> dict[str, Any]:
    """All that a run's result depends on."""
    free = {"output_dir", "models", "methods", "seeds", "search_seeds", "learning_rates", "ablations", "textbook",
            "small", "processes"}  # fmt: skip
    settings = {name: value for name, value in asdict(args).items() if name not in free}
    return {"run": asdict(run), "phases": describe(run.method), "base": fingerprint(run.model), **settings}


def read_result(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of a finished run; None if there is none.

    Raises:
        ValueError: if it was made with other settings.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    now = json.loads(json.dumps(settings))
    if result["settings"] != now:
        changed = [key for key in now if result["settings"].get(key) != now[key]]
        raise ValueError(
            f"{str(folder)!r} holds a run made with other settings ({', '.join(changed)}): give another output_dir, or "
            "delete this one."
        )
    return result


def execute(run: Run, args: CompareArguments, base: Path, folder: Path) -> None:
    """Train, measure, and write `result.json` whole, or nothing.

    Args:
        run: what to do.
        args: of the comparison.
        base: folder of the base model.
        folder: of this run.
    """
    began = time.time()
    settings = run_settings(run, args)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, json.dumps(settings, indent=1))
    set_seed(run.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    marks: dict[str, Any] = {}
    progress = _progress(run, args, tokenizer, marks)
    log = _train(run, args, base, folder, tokenizer, progress)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    shares = [entry["hpt/demonstration_share"] for entry in log if "hpt/demonstration_share" in entry]
    result = {
        "settings": settings,
        "curve": progress.points,
        "spent": progress.spent,
        "marks": marks,
        "demonstration_share": shares,
        "seconds": round(time.time() - began, 1),
    }
    write_atomically(folder / RESULT, json.dumps(result))


def _progress(run: Run, args: CompareArguments, tokenizer: Any, marks: dict[str, Any]) -> Progress:
    is_search = run.stage == "search"
    curve = Exam(args.curve_problems, 2 if is_search else 1, args.temperature)
    test = Exam(args.test_problems, args.test_samples, args.temperature, skip=args.curve_problems)
    as_rollouts = Exam(args.test_problems, args.test_samples, 1.0, skip=args.curve_problems)
    passes = Exam(max(1, args.pass_problems), args.pass_samples, args.temperature, skip=args.curve_problems)

    def at_budget(budget: str, model: Any) -> None:
        exams = {} if is_search else {budget: test}
        if run.has_passes and budget == "compute":
            exams["passes"] = passes
        if run.method == "base" and budget == "steps":
            exams["rollouts"] = as_rollouts
        for name, exam in exams.items():
            marks[name] = asdict(exam.mark(model, tokenizer, run.seed))

    compute = None if is_search else args.compute
    return Progress(
        Meter(tokenizer.pad_token_id), tokenizer, curve, args.curve_every, args.steps, compute, at_budget, run.seed
    )


def _train(
    run: Run, args: CompareArguments, base: Path, folder: Path, tokenizer: Any, progress: Progress
) -> list[dict[str, Any]]:
    """All phases of a method, one after the other. Returns the trainers' log."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    progress.measure(model)
    phases = (METHODS | ABLATIONS)[run.method].phases
    if not phases:
        for budget in ("steps", "compute"):
            progress.at_budget(budget, model)
    rows = training_rows(args.training_problems, run.seed, textbook=run.stage == "textbook")
    recipe = Recipe(args.prompts_per_step, args.num_generations, args.steps)
    log: list[dict[str, Any]] = []
    for number, phase in enumerate(phases, 1):
        is_last = number == len(phases)
        rate = run.learning_rate if is_last else run.first_learning_rate
        progress.phase_end = None if is_last else phase_steps(phase, args.steps)
        model = fresh_copy(model, base)
        progress.meter.watch(model)
        trainer = build_trainer(
            phase, recipe, model, tokenizer, rows, float(rate or 0), run.seed, folder / "trainer", [progress]
        )
        trainer.train()
        log += [{"phase": phase.trainer, **entry} for entry in trainer.state.log_history]
    return log
