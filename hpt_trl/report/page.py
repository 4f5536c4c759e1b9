"""Runs -> one HTML page that needs no network and no script."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import hpt_trl
from hpt_trl.monitoring.samples import Sample
from hpt_trl.report.charts import PANELS, Panel
from hpt_trl.report.diagnosis import diagnose
from hpt_trl.report.render import panel_svgs
from hpt_trl.report.run_folder import Run, early, late

_SECTIONS = {
    "What it solves": ("reward", "groups", "verdicts"),
    "What it learns from": ("sources", "gate_solve_rate", "gate_sources", "questions_solve_rate", "questions_sources"),
    "How it learns": ("nll", "entropy", "lengths", "gradient", "time"),
}
_NUMBERS = (
    ("solve rate", "hpt/solve_rate", "{:.1%}"),
    ("mean reward", "reward", "{:.3f}"),
    ("prompts on demonstrations", "hpt/demonstration_share", "{:.1%}"),
    ("rollouts that carry signal", "hpt/signal_share", "{:.1%}"),
    ("demonstrations' NLL, nats per token", "demonstrations/nll", "{:.3f}"),
    ("entropy, nats per token", "entropy", "{:.3f}"),
    ("completion, tokens", "completions/mean_length", "{:.1f}"),
    ("completions cut at the limit", "completions/clipped_ratio", "{:.1%}"),
    ("gradient norm", "grad_norm", "{:.3g}"),
    ("step, seconds", "step_time", "{:.3g}"),
)
# What a run is known by; what else differs between two runs is added.
_SETTINGS = (
    "algorithm", "gate", "gate_threshold", "sft_weight", "num_generations", "generation_batch_size", "temperature",
    "learning_rate", "loss_type", "max_completion_length", "seed",
)  # fmt: skip
# Of no consequence for what a run learned.
_PLACES = {"output_dir", "logging_dir", "run_name", "report_to", "hub_token"}
_MOMENTS = 4


def render(runs: Sequence[Run]) -> str:
    """The page of one run, or of two side by side on the same scales.

    Texts of the runs are escaped, and the page allows itself neither scripts nor anything from elsewhere.

    Args:
        runs: one or two, from [`~hpt_trl.runs.read_run`].
    """
    environment = Environment(
        loader=PackageLoader("hpt_trl.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        title=" and ".join(run.name for run in runs),
        runs=[_told(run) for run in runs],
        numbers=_numbers(runs),
        sections=[_section(title, names, runs) for title, names in _SECTIONS.items()],
        settings=_settings(runs),
        version=hpt_trl.__version__,
    )


def _told(run: Run) -> dict[str, Any]:
    """What the page says of one run."""
    return {
        "name": run.name,
        "status": _status(run),
        "about": _about(run),
        "findings": diagnose(run),
        "samples": [_sample(sample) for sample in chosen(run.samples)],
        "options": sorted((name, _plain(value)) for name, value in run.config.items() if value is not None),
        "notes": run.notes,
        "origin": f"read from {run.source.relative_to(run.folder)}." if run.source else "no log.",
    }


def _status(run: Run) -> str:
    of_all = f" of {run.max_steps:,}" if run.max_steps else ""
    if run.is_finished:
        return f"Finished: {run.steps:,}{of_all} optimizer steps."
    when = ""
    if run.source is not None:
        written = datetime.fromtimestamp(run.source.stat().st_mtime, UTC)
        when = f" Last written {written:%Y-%m-%d %H:%M} UTC."
    return f"Not finished: {run.steps:,}{of_all} optimizer steps. It is still going on, or was stopped.{when}"


def _about(run: Run) -> str:
    facts = run.facts
    versions = facts.get("versions", {})
    parts = {
        facts.get("trainer"): "trainer" in facts,
        f"model {facts.get('model')}": bool(facts.get("model")),
        f"rewards {', '.join(facts.get('reward_functions', []))}": bool(facts.get("reward_functions")),
        f"{facts.get('processes')} process{'' if facts.get('processes') == 1 else 'es'}": "processes" in facts,
        ", ".join(f"{name} {number}" for name, number in versions.items()): bool(versions),
    }
    return " · ".join(str(part) for part, is_known in parts.items() if is_known)


def _numbers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows = []
    for label, name, form in _NUMBERS:
        found = [run.series(name) for run in runs]
        if any(len(values) for values in found):
            pairs = [tuple(_formatted(form, mean(values)) for mean in (early, late)) for values in found]
            rows.append({"label": label, "pairs": pairs})
    return rows


def _formatted(form: str, value: float) -> str | None:
    return None if math.isnan(value) else form.format(value).replace("%", " %")


def _section(title: str, names: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    shown, absent = [], []
    for panel in (panel for name in names for panel in PANELS if panel.name == name):
        pictures = panel_svgs(panel, runs)
        if any(pictures):
            shown.append(_panel(panel, pictures))
        elif panel.missing not in absent:
            absent.append(panel.missing)
    return {"title": title, "panels": shown, "absent": absent}


def _panel(panel: Panel, pictures: Sequence[str | None]) -> dict[str, Any]:
    # Drawn by us, from numbers: the only part of the page that is not escaped.
    safe = [None if picture is None else Markup(picture) for picture in pictures]
    return {"title": panel.title, "caption": panel.caption, "missing": panel.missing, "pictures": safe}


def chosen(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of the first and the last step there are, and of some between, evenly spread."""
    steps = sorted({sample.step for sample in samples})
    if len(steps) > _MOMENTS:
        steps = [steps[round(i * (len(steps) - 1) / (_MOMENTS - 1))] for i in range(_MOMENTS)]
    return [sample for sample in samples if sample.step in steps]


def _sample(sample: Sample) -> dict[str, Any]:
    total = sum(value or 0.0 for value in sample.rewards.values())
    verdict = sample.notes.get("verdict")
    notes = [f"{name}: {value}" for name, value in sample.notes.items() if name != "verdict" and value]
    rewards = [f"{name} {'none' if value is None else f'{value:g}'}" for name, value in sample.rewards.items()]
    facts = [*notes, *rewards]
    if sample.solve_rate is not None:
        facts.append(f"{100 * sample.solve_rate:.0f} % of the prompt's rollouts solve it")
    if sample.learned_from is not None:
        facts.append(f"it learned from {sample.learned_from}")
    return {
        "step": sample.step,
        "prompt": sample.prompt,
        "completion": sample.completion,
        "verdict": verdict or f"reward {total:g}",
        "is_right": verdict == "right" if verdict else total > 0,
        "facts": facts,
    }


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    options = [run.config | {name: run.facts[name] for name in ("gate", "algorithm", "model") if name in run.facts}
               for run in runs]  # fmt: skip
    if not any(options):
        return []
    names = list(_SETTINGS)
    if len(runs) > 1:
        others = {name for each in options for name in each} - {*names, *_PLACES}
        names += sorted(name for name in others if len({str(each.get(name)) for each in options}) > 1)
    rows = [{"name": name, "texts": [_known(each, name) for each in options]} for name in names]
    return [row for row in rows if any(value is not None for value in row["texts"])]


def _known(options: dict[str, Any], name: str) -> str | None:
    return None if options.get(name) is None else _plain(options[name])
