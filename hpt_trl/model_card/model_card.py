"""Writes a model card with metadata and a figure, from the facts of a run, its gate history and its evaluations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hpt_trl.common.escaping import code_block, code_span, encodable, markdown_text
from hpt_trl.common.files import atomic_path
from hpt_trl.common.masking import mask_tokens
from hpt_trl.data.prompts import INSTRUCTION
from hpt_trl.durability.gate_history import FILE_NAME as HISTORY
from hpt_trl.model_card.run_facts import RunFacts

FIGURE = "gate.png"
CARD = "README.md"

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_MAX_INTERVALS = 5
_QUESTION = "What is 12 * 7 + 5?"
# Okabe and Ito's palette, which color-blind readers can distinguish.
_BLUE, _ORANGE = "#0072B2", "#D55E00"

_TRL_CITATION = """\
@software{vonwerra2020trl,
  title   = {{TRL: Transformers Reinforcement Learning}},
  author  = {von Werra, Leandro and Belkada, Younes and Tunstall, Lewis and Beeching, Edward and Thrush, Tristan and \
Lambert, Nathan and Huang, Shengyi and Rasul, Kashif and Gallouédec, Quentin},
  license = {Apache-2.0},
  url     = {https://github.com/huggingface/trl},
  year    = {2020}
}"""


@dataclass(frozen=True)
class Metric:
    """One number and its 95% interval, all of them fractions in [0, 1]; `kind` is the Hub's name of the metric."""

    kind: str
    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """The metrics of one benchmark.

    Args:
        title: name of the benchmark.
        hub_id: id of its dataset on the Hub, or "".
        config: configuration of that dataset, or "".
        split: split of that dataset, or "".
        problems: the number of problems, in words.
        sampling: the sampling parameters, in words.
        metrics: the metrics.
    """

    title: str
    hub_id: str
    config: str
    split: str
    problems: str
    sampling: str
    metrics: list[Metric] = field(default_factory=list)


def write_card(facts: RunFacts, folder: str | Path, results: Sequence[Result] = ()) -> None:
    """Write `README.md` and its figure to the folder of a run.

    Args:
        facts: facts of the run.
        folder: folder of the run, which may contain `gate.parquet`.
        results: results of `hpt-trl evaluate`.
    """
    path = Path(folder) / HISTORY
    history = pd.read_parquet(path) if path.is_file() else None
    if history is not None:
        plot_gate(history, Path(folder) / FIGURE)
    model_card(facts, history, results).save(Path(folder) / CARD)


def model_card(facts: RunFacts, history: pd.DataFrame | None, results: Sequence[Result] = ()) -> ModelCard:
    """Render the card; `huggingface_hub` parses its metadata.

    Args:
        facts: facts of the run.
        history: rows of `gate.parquet`; None before the first step.
        results: results of `hpt-trl evaluate`.
    """
    from jinja2 import Environment, StrictUndefined

    # Before names are escaped, which could hide a secret.
    facts = facts.without_secrets()
    # An undefined variable raises an error instead of leaving a gap in a sentence.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"text": markdown_text, "code": code_block}
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        metadata=metadata_of(facts, results).to_yaml(),
        intro=intro_of(facts),
        data=data_of(facts),
        usage=usage_of(facts),
        intervals=[] if history is None else intervals_of(history),
        figure=FIGURE,
        results=results,
        held_out=held_out_of(facts),
        sampling="; ".join(dict.fromkeys(result.sampling for result in results)),
        config=yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True).strip(),
        trl_citation=_TRL_CITATION,
    )
    return ModelCard(encodable(mask_tokens(text)))


def metadata_of(facts: RunFacts, results: Sequence[Result]) -> ModelCardData:
    """The metadata of the card: only keys of the Hub's specification, and only those that have a value."""
    evaluated = [
        _entry(result, metric.kind, metric.name, metric.value) for result in results for metric in result.metrics
    ]
    if (held_out := held_out_of(facts)) is not None:
        rows = Result(facts.data.name or "held-out rows", facts.data.hub_id, facts.data.config, "", "", "")
        name = f"solve rate on held-out rows at training step {held_out['step']}, in %"
        evaluated.append(_entry(rows, "accuracy", name, held_out["value"]))
    data = ModelCardData(
        base_model=facts.base_hub_id or None,
        datasets=[facts.data.hub_id] if facts.data.hub_id else None,
        library_name="peft" if facts.form == "adapter" else "transformers",
        license=facts.license or None,
        pipeline_tag="text-generation",
        tags=["generated_from_trainer", *facts.tags],
        model_name=facts.name,
        eval_results=evaluated or None,
    )
    if facts.base_hub_id:
        data["base_model_relation"] = "adapter" if facts.form == "adapter" else "finetune"
    return data


def _entry(result: Result, kind: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=result.hub_id or "custom",
        dataset_name=result.title,
        dataset_config=result.config or None,
        dataset_split=result.split or None,
        metric_type=kind,
        metric_name=name,
        metric_value=round(100 * value, 2),
    )


def held_out_of(facts: RunFacts) -> dict[str, Any] | None:
    """Step and solve rate of the trainer's last evaluation; None if there was none."""
    key = "eval_hpt/solve_rate"
    evaluations = [entry for entry in facts.held_out if key in entry]
    return {"step": int(evaluations[-1]["step"]), "value": evaluations[-1][key]} if evaluations else None


def intro_of(facts: RunFacts) -> str:
    """Sentences on the base model, the method, and the form of the weights."""
    hub_base = f"[{facts.base_hub_id}](https://huggingface.co/{facts.base_hub_id})" if facts.base_hub_id else ""
    if not facts.base:
        base = "a language model"
    elif facts.base == facts.base_hub_id:
        base = hub_base
    elif facts.base.startswith("the "):
        base = markdown_text(facts.base)
    else:
        base = f"the local model {code_span(facts.base)}" + (f" (derived from {hub_base})" if hub_base else "")
    form = {
        "full": "",
        "adapter": " Only the weights of the adapter are included.",
        "merged": " It was trained as an adapter, which has been merged into the weights.",
    }[facts.form]
    tools = "using [TRL](https://github.com/huggingface/trl) and hpt_trl"
    return f"This model is a fine-tuned version of {base}. It was trained with {_method_title(facts)} {tools}.{form}"


def _method_title(facts: RunFacts) -> str:
    if facts.algorithm != "hpt":
        return code_span(facts.algorithm)
    if not facts.has_demonstrations:
        return "reinforcement learning on its own rollouts (GRPO)"
    return f"Hybrid Post-Training ([HPT](https://huggingface.co/papers/{facts.paper['id']}))"


def data_of(facts: RunFacts) -> str:
    """One sentence on the training data."""
    data = facts.data
    name = f"[{data.hub_id}](https://huggingface.co/datasets/{data.hub_id})" if data.hub_id else code_span(data.name)
    if not data.name:
        name = "passed in Python"
    elif " " in data.name:
        name = markdown_text(data.name)
    parts = [name]
    if data.config:
        parts.append(f"configuration {code_span(data.config)}")
    if data.split:
        parts.append(f"split {code_span(data.split)}")
    if facts.rows is not None:
        parts.append(f"{facts.rows:,} rows")
    if data.note:
        parts.append(markdown_text(data.note))
    return f"Training data: {', '.join(parts)}."


def usage_of(facts: RunFacts) -> str:
    """Python code that loads the model and asks it a question."""
    name = _python_text(facts.repository or facts.folder or facts.name)
    content = f"{_QUESTION}\n{INSTRUCTION}"
    general = [{"role": "user", "content": content}] if facts.is_chat else f"{content}\n"
    prompt = facts.example or general
    lines = ["from transformers import pipeline", "", f'generator = pipeline("text-generation", model={name})']
    if facts.form == "adapter":
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline",
            "",
            f"base = {_python_text(facts.base_hub_id or 'path/to/' + (facts.base or 'the_base_model'))}",
            f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), {name})",
            f"tokenizer = AutoTokenizer.from_pretrained({name})",
            'generator = pipeline("text-generation", model=model, tokenizer=tokenizer)',
        ]
    lines += [
        f"prompt = {prompt!r}",
        f"answer = generator(prompt, max_new_tokens={facts.longest_answer}, return_full_text=False)[0]",
        'print(answer["generated_text"])',
    ]
    return "\n".join(lines)


def _python_text(text: str) -> str:
    """The text as a literal of Python in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def intervals_of(history: pd.DataFrame) -> list[dict[str, str]]:
    """Prompts, solve rate and share of prompts trained on demonstrations, for at most five intervals of steps.

    Args:
        history: rows of `gate.parquet`.
    """
    steps = sorted(history["step"].unique())
    size = -(-len(steps) // _MAX_INTERVALS)
    rows = []
    for start in range(0, len(steps), size):
        interval = history[history["step"].isin(steps[start : start + size])]
        solve_rate = interval["solve_rate"].mean()
        first, last = interval["step"].min() + 1, interval["step"].max() + 1
        rows.append(
            {
                "steps": str(first) if first == last else f"{first} to {last}",
                "prompts": f"{len(interval):,}",
                "solved": "no rollouts" if pd.isna(solve_rate) else f"{solve_rate:.1%}",
                "demonstrations": f"{_on_demonstration(interval).mean():.1%}",
            }
        )
    return rows


def _on_demonstration(history: pd.DataFrame) -> pd.Series:
    return (history["demonstration"] > 0) | (history["off_policy"] > 0)


def plot_gate(history: pd.DataFrame, path: str | Path) -> None:
    """Plot the solve rate and the share of prompts trained on demonstrations over optimizer steps, as a PNG file.

    Args:
        history: rows of `gate.parquet`.
        path: the file to write.
    """
    from matplotlib.figure import Figure

    by_step = history.assign(on_demonstration=_on_demonstration(history)).groupby("step")
    share, solve_rate = by_step["on_demonstration"].mean(), by_step["solve_rate"].mean()
    steps = share.index + 1
    # For many steps, the moving average is drawn over a pale line of the individual values.
    window = max(1, len(share) // 30)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    curves = []
    if share.any():
        axes.fill_between(steps, share.rolling(window, min_periods=1).mean(), color=_ORANGE, alpha=0.25, linewidth=0)
        curves.append((share, _ORANGE, "prompts trained on a demonstration"))
    if solve_rate.notna().any():
        curves.append((solve_rate, _BLUE, "solve rate"))
    for values, color, label in curves:
        axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(steps, values.rolling(window, min_periods=1).mean(), color=color, linewidth=2, label=label)
    axes.set(xlabel="optimizer step", ylabel="fraction", ylim=(0, 1.02), xlim=(steps.min(), max(steps.max(), 2)))
    axes.spines[["top", "right"]].set_visible(False)
    if curves:  # matplotlib warns of a legend without entries
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)
    with atomic_path(Path(path), durable=False) as temporary:
        figure.savefig(temporary, dpi=120)
