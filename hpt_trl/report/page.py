"""Renders one or two runs as a single HTML page that needs no network and no scripts."""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import hpt_trl
from hpt_trl.common.escaping import encodable
from hpt_trl.common.masking import mask_tokens
from hpt_trl.model_card.evaluations import chosen_evaluations, read_results
from hpt_trl.monitoring.samples import Sample
from hpt_trl.report.charts import PANELS, Panel
from hpt_trl.report.diagnosis import diagnose
from hpt_trl.report.gate_maps import by_step
from hpt_trl.report.render import panel_svgs
from hpt_trl.report.run_folder import Run, early, late
from hpt_trl.verifier.answers.boxes import last_boxed

_SECTIONS = {
    "Rewards": ("reward", "groups", "verdicts"),
    "Gate": ("sources", "gate_solve_rate", "gate_sources", "questions_solve_rate", "questions_sources"),
    "Training": ("nll", "entropy", "lengths", "gradient", "learning_rate", "kl", "clipped", "time"),
}
_METRICS = (
    ("solve rate", "hpt/solve_rate", "{:.1%}"),
    ("mean reward", "reward", "{:.3f}"),
    ("prompts on demonstrations", "hpt/demonstration_share", "{:.1%}"),
    ("rollouts with a non-zero gradient", "hpt/signal_share", "{:.1%}"),
    ("NLL of the demonstrations (nats per token)", "demonstrations/nll", "{:.3f}"),
    ("entropy (nats per token)", "entropy", "{:.3f}"),
    ("completion length (tokens)", "completions/mean_length", "{:.1f}"),
    ("completions truncated at the limit", "completions/clipped_ratio", "{:.1%}"),
    ("gradient norm", "grad_norm", "{:.3g}"),
    ("time per step (seconds)", "step_time", "{:.3g}"),
)
# Always shown; for two runs, other options that differ are added.
_SETTINGS = (
    "algorithm", "gate", "gate_threshold", "sft_weight", "num_generations", "generation_batch_size", "temperature",
    "learning_rate", "loss_type", "max_completion_length", "seed",
)  # fmt: skip
# Options that have no effect on training.
_IGNORED_SETTINGS = {"output_dir", "logging_dir", "run_name", "report_to", "hub_token"}
_SAMPLED_STEPS = 4
_TABLE_ROWS = 20
# Where a path of this machine begins: folders behind a slash that continues no word, number or address.
_FOLDERS = re.compile(r"(?<![\w.:/~$\\}-])(?:[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+")


def render(runs: Sequence[Run]) -> str:
    """Render the page of one run, or of two runs side by side on the same scales.

    Texts from the runs are escaped, and the page's security policy forbids scripts and external resources.

    Args:
        runs: one or two runs from [`~hpt_trl.runs.read_run`].
    """
    environment = Environment(
        loader=PackageLoader("hpt_trl.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    return environment.get_template("report.html.jinja").render(
        title=" and ".join(run.name for run in runs),
        runs=[_describe_run(run) for run in runs],
        metrics=_metrics(runs),
        evaluations=_evaluations(runs),
        sections=[_section(title, names, runs) for title, names in _SECTIONS.items()],
        settings=_settings(runs),
        version=hpt_trl.__version__,
    )


def _shown(value: Any) -> Any:
    """A value of the page, before it is escaped: texts without secrets."""
    return encodable(mask_tokens(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _describe_run(run: Run) -> dict[str, Any]:
    """The values that the template shows for one run."""
    return {
        "name": run.name,
        "status": _status(run),
        "about": _about(run),
        "findings": diagnose(run),
        "samples": [_sample(sample) for sample in selected_samples(run.samples)],
        "options": sorted((name, _plain(value)) for name, value in run.config.items() if value is not None),
        "notes": run.notes,
        "origin": f"read from {run.source.relative_to(run.folder)}." if run.source else "no log.",
    }


def _status(run: Run) -> str:
    steps = f"{run.steps:,} of {run.max_steps:,}" if run.max_steps else f"{run.steps:,}"
    if run.is_finished:
        return f"Finished: {steps} optimizer steps."
    last_update = ""
    if run.source is not None:
        written = datetime.fromtimestamp(run.source.stat().st_mtime, UTC)
        last_update = f" Last updated {written:%Y-%m-%d %H:%M} UTC."
    return f"Not finished: {steps} optimizer steps. The run is still in progress or was stopped.{last_update}"


def _about(run: Run) -> str:
    facts = run.facts
    parts = [str(facts["trainer"])] if "trainer" in facts else []
    if facts.get("model"):
        parts.append(f"model {_plain(facts['model'])}")
    if facts.get("reward_functions"):
        parts.append(f"rewards {', '.join(facts['reward_functions'])}")
    if "processes" in facts:
        parts.append("1 process" if facts["processes"] == 1 else f"{facts['processes']} processes")
    if facts.get("versions"):
        parts.append(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    return " · ".join(parts)


def _metrics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows = []
    for label, name, template in _METRICS:
        series = [run.series(name) for run in runs]
        if any(len(values) for values in series):
            pairs = [(_formatted(template, early(values)), _formatted(template, late(values))) for values in series]
            rows.append({"label": label, "pairs": pairs})
    return rows


def _evaluations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row per metric of the evaluations in the runs' folders, with a cell for each run."""
    cells: dict[str, list[str | None]] = {}
    for number, run in enumerate(runs):
        for label, text in _evaluation_texts(run):
            cells.setdefault(label, [None] * len(runs))[number] = text
    return [{"label": label, "cells": row} for label, row in cells.items()]


def _evaluation_texts(run: Run) -> Iterator[tuple[str, str]]:
    for file in chosen_evaluations(run.folder, None):
        try:
            results = read_results(file, run.folder, None)
        except ValueError as error:
            yield f"{file.relative_to(run.folder)}", f"not shown: {_plain(error)}"
            continue
        for result in results:
            for metric in result.metrics:
                label = f"{metric.name} on {result.title} ({result.problems}; {result.sampling})"
                yield label, f"{metric.value:.1%} ({metric.low:.1%} to {metric.high:.1%})"


def _formatted(template: str, value: float) -> str | None:
    return None if math.isnan(value) else template.format(value)


def _section(title: str, names: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    by_name = {panel.name: panel for panel in PANELS}
    panels, missing = [], []
    for panel in (by_name[name] for name in names):
        figures = panel_svgs(panel, runs)
        if any(figures):
            panels.append(_panel(panel, figures, runs))
        elif panel.missing not in missing:
            missing.append(panel.missing)
    return {"title": title, "panels": panels, "missing": missing}


def _panel(panel: Panel, figures: Sequence[str | None], runs: Sequence[Run]) -> dict[str, Any]:
    # The figures are the only part of the page that is not escaped: they are drawn from numbers only.
    safe = [None if figure is None else Markup(figure) for figure in figures]
    tables = [_values(panel, run) for run in runs]
    return {
        "title": panel.title, "caption": panel.caption, "missing": panel.missing, "figures": safe, "tables": tables
    }  # fmt: skip


def _values(panel: Panel, run: Run) -> dict[str, Any]:
    """The values of a chart as a table, at evenly spaced steps if there are many."""
    columns = {name: values for name in panel.metrics if len(values := by_step(run, name))}
    table = pd.DataFrame(columns).sort_index()
    if len(table) > _TABLE_ROWS:
        table = table.iloc[[round(i * (len(table) - 1) / (_TABLE_ROWS - 1)) for i in range(_TABLE_ROWS)]]
    rows = [(str(step), [_formatted("{:.4g}", value) for value in row]) for step, *row in table.itertuples()]
    return {"names": list(columns), "rows": rows}


def selected_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of the first step, of the last step, and of evenly spaced steps in between."""
    steps = sorted({sample.step for sample in samples})
    if len(steps) > _SAMPLED_STEPS:
        steps = [steps[round(i * (len(steps) - 1) / (_SAMPLED_STEPS - 1))] for i in range(_SAMPLED_STEPS)]
    return [sample for sample in samples if sample.step in steps]


def _sample(sample: Sample) -> dict[str, Any]:
    total = sum(value or 0.0 for value in sample.rewards.values())
    verdict = sample.notes.get("verdict")
    notes = [f"{name}: {_answer(value)}" for name, value in sample.notes.items() if name != "verdict" and value]
    rewards = [f"{name} {'none' if value is None else f'{value:g}'}" for name, value in sample.rewards.items()]
    facts = [*notes, *rewards]
    if sample.solve_rate is not None:
        facts.append(f"solve rate {sample.solve_rate:.0%}")
    if sample.learned_from is not None:
        facts.append(f"prompt trained on {sample.learned_from}")
    return {
        "step": sample.step,
        "prompt": sample.prompt,
        "completion": sample.completion,
        "demonstration": sample.demonstration,
        "verdict": verdict or f"reward {total:g}",
        "is_right": verdict == "right" if verdict else total > 0,
        "facts": facts,
    }


def _answer(text: str) -> str:
    """An answer or a solution in the same notation, without the dollars or the box around it."""
    boxed = last_boxed(text)
    return (text if boxed is None else boxed).strip().strip("$").strip()


def _plain(value: Any) -> str:
    """An option as text, without the folders of the machine that it names."""
    return f"{value:g}" if isinstance(value, float) else _FOLDERS.sub("", str(value))


def _settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    facts = ("gate", "algorithm", "model")
    options = [run.config | {name: run.facts[name] for name in facts if name in run.facts} for run in runs]
    if not any(options):
        return []
    names = list(_SETTINGS)
    if len(runs) > 1:
        other_names = {name for values in options for name in values} - {*names, *_IGNORED_SETTINGS}
        names += sorted(name for name in other_names if len({str(values.get(name)) for values in options}) > 1)
    rows = [{"name": name, "texts": [_option_text(values, name) for values in options]} for name in names]
    return [row for row in rows if any(text is not None for text in row["texts"])]


def _option_text(options: dict[str, Any], name: str) -> str | None:
    return None if options.get(name) is None else _plain(options[name])
