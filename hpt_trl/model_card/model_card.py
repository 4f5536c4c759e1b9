"""The facts of a run, its gate's history and its evaluations -> a model card with metadata, and its picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hpt_trl.common.files import atomic_path
from hpt_trl.data.prompts import INSTRUCTION
from hpt_trl.durability.gate_history import FILE_NAME as HISTORY
from hpt_trl.model_card.run_facts import RunFacts

PICTURE = "gate.png"
CARD = "README.md"

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
_STRETCHES = 5
_QUESTION = "What is 12 * 7 + 5?"
# Okabe and Ito's colours, told apart by colour-blind readers too.
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
    """One number with its 95 % interval, all shares in [0, 1]; `kind` is the Hub's name of the metric."""

    kind: str
    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """The metrics of one benchmark.

    Args:
        title: of the benchmark. hub_id, config, split: where it is on the Hub, "" if it is not.
        problems: how many, in words.
        sampling: how answers were drawn, in words.
        metrics: what was counted.
    """

    title: str
    hub_id: str
    config: str
    split: str
    problems: str
    sampling: str
    metrics: list[Metric] = field(default_factory=list)


def write_card(facts: RunFacts, folder: str | Path, results: Sequence[Result] = ()) -> None:
    """Write `README.md`, and the picture it shows, into the folder of a run.

    Args:
        facts: of the run.
        folder: where its `gate.parquet` may be.
        results: of `hpt-trl evaluate`.
    """
    path = Path(folder) / HISTORY
    history = pd.read_parquet(path) if path.is_file() else None
    if history is not None:
        plot_gate(history, Path(folder) / PICTURE)
    model_card(facts, history, results).save(Path(folder) / CARD)


def model_card(facts: RunFacts, history: pd.DataFrame | None, results: Sequence[Result] = ()) -> ModelCard:
    """The card, whose metadata `huggingface_hub` has read back.

    Args:
        facts: of the run.
        history: rows of `gate.parquet`; None before the first step.
        results: of `hpt-trl evaluate`.
    """
    from jinja2 import Environment, StrictUndefined

    # A hole in a sentence is an error, not an empty word.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        facts=facts,
        metadata=metadata_of(facts, results).to_yaml(),
        intro=intro_of(facts),
        data=data_of(facts),
        usage=usage_of(facts),
        stretches=[] if history is None else stretches_of(history),
        picture=PICTURE,
        results=results,
        held_out=held_out_of(facts),
        sampling="; ".join(dict.fromkeys(result.sampling for result in results)),
        config=yaml.safe_dump(facts.config, sort_keys=False, allow_unicode=True).strip(),
        trl_citation=_TRL_CITATION,
    )
    return ModelCard(text)


def metadata_of(facts: RunFacts, results: Sequence[Result]) -> ModelCardData:
    """The card's metadata: keys of the Hub's specification only, and none without a value."""
    evaluated = [
        _entry(result, metric.kind, metric.name, metric.value) for result in results for metric in result.metrics
    ]
    if (held_out := held_out_of(facts)) is not None:
        own = Result(facts.data.name or "held-out rows", facts.data.hub_id, facts.data.config, "", "", "")
        name = f"answers right in training's evaluation at step {held_out['step']}, in %"
        evaluated.append(_entry(own, "accuracy", name, held_out["value"]))
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
    """Step and value of the trainer's last evaluation: the share of right answers; None if there was none."""
    key = "eval_hpt/solve_rate"
    found = [entry for entry in facts.held_out if key in entry]
    return {"step": int(found[-1]["step"]), "value": found[-1][key]} if found else None


def intro_of(facts: RunFacts) -> str:
    """What the model is made from, how, and what of it is here: one sentence."""
    ancestor = f"[{facts.base_hub_id}](https://huggingface.co/{facts.base_hub_id})" if facts.base_hub_id else ""
    if not facts.base:
        what = "a language model"
    elif facts.base == facts.base_hub_id:
        what = ancestor
    elif facts.base.startswith("the "):
        what = facts.base
    else:
        what = f"the local model `{facts.base}`" + (f", itself made from {ancestor}" if ancestor else "")
    form = {
        "full": "",
        "adapter": " as an adapter, whose weights alone are here",
        "merged": " as an adapter, which is merged into the weights here",
    }[facts.form]
    tools = "with [TRL](https://github.com/huggingface/trl) and hpt_trl"
    return f"This is {what}, trained by {_title(facts)}{form}, {tools}."


def _title(facts: RunFacts) -> str:
    if not facts.has_demonstrations:
        return (
            "reinforcement learning on its own answers (GRPO)" if facts.algorithm == "hpt" else f"`{facts.algorithm}`"
        )
    if facts.algorithm != "hpt":
        return f"`{facts.algorithm}`"
    return f"Hybrid Post-Training ([HPT](https://huggingface.co/papers/{facts.paper['id']}))"


def data_of(facts: RunFacts) -> str:
    """What the model was trained on: one sentence."""
    data = facts.data
    name = f"[{data.hub_id}](https://huggingface.co/datasets/{data.hub_id})" if data.hub_id else f"`{data.name}`"
    if not data.name:
        name = "given in Python"
    elif " " in data.name:
        name = data.name
    parts = [name]
    parts += [f"configuration `{data.config}`"] * bool(data.config) + [f"split `{data.split}`"] * bool(data.split)
    parts += [f"{facts.rows:,} rows"] if facts.rows is not None else []
    return f"Data: {', '.join(parts + [data.note] * bool(data.note))}."


def usage_of(facts: RunFacts) -> str:
    """Python that loads the model and asks it a question."""
    name = facts.repository or facts.name
    content = f"{_QUESTION}\n{INSTRUCTION}"
    prompt = [{"role": "user", "content": content}] if facts.is_chat else f"{content}\n"
    lines = ["from transformers import pipeline", "", f'generator = pipeline("text-generation", model="{name}")']
    if facts.form == "adapter":
        lines = [
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline",
            "",
            f'base = "{facts.base_hub_id or "path/to/" + (facts.base or "the_base_model")}"',
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "{name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
            'generator = pipeline("text-generation", model=model, tokenizer=tokenizer)',
        ]
    lines += [
        f"prompt = {prompt!r}",
        f"answer = generator(prompt, max_new_tokens={facts.longest_answer}, return_full_text=False)[0]",
        'print(answer["generated_text"])',
    ]
    return "\n".join(lines)


def stretches_of(history: pd.DataFrame) -> list[dict[str, str]]:
    """The run in a few stretches of steps: prompts, share of right answers, share that learned from demonstrations.

    Args:
        history: rows of `gate.parquet`.
    """
    steps = sorted(history["step"].unique())
    size = -(-len(steps) // _STRETCHES)
    rows = []
    for first in range(0, len(steps), size):
        some = history[history["step"].isin(steps[first : first + size])]
        solved = some["solve_rate"].mean()
        low, high = some["step"].min() + 1, some["step"].max() + 1
        rows.append(
            {
                "steps": str(low) if low == high else f"{low} to {high}",
                "prompts": f"{len(some):,}",
                "solved": "nothing was tried" if pd.isna(solved) else f"{solved:.1%}",
                "demonstrations": f"{_on_demonstration(some).mean():.1%}",
            }
        )
    return rows


def _on_demonstration(history: pd.DataFrame) -> pd.Series:
    return (history["demonstration"] > 0) | (history["off_policy"] > 0)


def plot_gate(history: pd.DataFrame, picture: str | Path) -> None:
    """Draw what prompts learned from over optimizer steps, and how often they were solved, into one PNG.

    Args:
        history: rows of `gate.parquet`.
        picture: the file to write.
    """
    from matplotlib.figure import Figure

    by_step = history.assign(on_demonstration=_on_demonstration(history)).groupby("step")
    share, solved = by_step["on_demonstration"].mean(), by_step["solve_rate"].mean()
    steps = share.index + 1
    # Many steps are shown as their running mean, over a pale line of each.
    window = max(1, len(share) // 30)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    if share.any():
        axes.fill_between(steps, share.rolling(window, min_periods=1).mean(), color=_ORANGE, alpha=0.25, linewidth=0)
    for values, color, label in (
        (share, _ORANGE, "prompts that learned from a demonstration"),
        (solved, _BLUE, "right answers (solve rate)"),
    ):
        if values.notna().any() and (values.any() or label.startswith("right")):
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            axes.plot(steps, values.rolling(window, min_periods=1).mean(), color=color, linewidth=2, label=label)
    axes.set(xlabel="optimizer step", ylabel="share", ylim=(0, 1.02), xlim=(steps.min(), max(steps.max(), 2)))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=2)
    with atomic_path(Path(picture), durable=False) as temporary:
        figure.savefig(temporary, dpi=120)
