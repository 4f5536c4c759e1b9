"""The model card of every kind of run: no gaps in its sentences, valid Hub metadata, and only true statements."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from peft import LoraConfig

from hpt_trl.commands.push import PushArguments, push
from hpt_trl.common.escaping import one_line
from hpt_trl.common.masking import safe_command, without_secrets
from hpt_trl.model_card import run_facts
from hpt_trl.model_card.model_card import Metric, Result, intervals_of, model_card, plot_gate
from hpt_trl.model_card.run_facts import Data, base_of, hub_id, read_facts
from tests.hub_server import TOKEN, card_errors
from tests.tiny import ROWS, make_trainer

HISTORY = pd.DataFrame(
    {
        "step": [0, 0, 1, 1],
        "prompt_id": list("abab"),
        "solve_rate": [0.0, 0.5, 1.0, 0.5],
        "rollouts": [0.0, 1.0, 1.0, 1.0],
        "demonstration": [1.0, 0.0, 0.0, 0.0],
        "off_policy": [0.0] * 4,
    }
)


def check(card: ModelCard) -> str:
    """Check what holds for every card, and return the text of the card."""
    text = str(card)
    assert card_errors(text) == []
    assert "licence" not in text
    assert ModelCard(text).data.to_dict() == card.data.to_dict()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for gap in ("None", "nan", "[]", "``", "()", "{", "  |  |", ", ,", " ,", "undefined"):
        assert gap not in prose, (gap, prose)
    assert "\n\n\n" not in text
    return text


def trained(model, folder, **options):
    """Train for one step; return the trainer and the card."""
    trainer = make_trainer(model, folder, max_steps=1, **options)
    trainer.train()
    trainer.create_model_card()
    return trainer, check(ModelCard.load(folder / "README.md"))


def test_a_local_base_model_is_named_after_its_folder(tiny_model, tmp_path):
    _, text = trained(tiny_model, tmp_path / "run")
    assert "# run\n\nThis model is a fine-tuned version of the local model `tiny`. It was trained with Hybrid" in text
    assert str(Path(tiny_model).parent) not in text
    assert (
        "If none of them was correct, the model was trained on the demonstration with the SFT loss (weight 1)" in text
    )
    assert "At every step, the model sampled 4 rollouts per prompt." in text
    assert "| 1 | 4 | " in text  # one step of 4 prompts
    assert "Training data: passed in Python, 16 rows." in text
    assert "The run was started from Python" in text
    assert "arXiv 2509.04419" in text
    assert "vonwerra2020trl" in text
    assert (tmp_path / "run" / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_with_the_gate_off_is_described_as_grpo(tiny_model, tmp_path):
    rows = ROWS.remove_columns("demonstration")
    _, text = trained(tiny_model, tmp_path / "run", gate="off", rows=rows)
    assert "trained with reinforcement learning on its own rollouts (GRPO)" in text
    assert "no demonstration was used" in text
    assert "arXiv 2402.03300" in text  # DeepSeekMath's
    assert "2509.04419" not in text


@pytest.mark.parametrize("algorithm", ["sft", "luffy", "grpo"])
def test_other_algorithms_are_named(tiny_model, tmp_path, algorithm):
    _, text = trained(tiny_model, tmp_path / "run", algorithm=algorithm)
    assert f"trained with `{algorithm}`" in text
    assert {"sft": "nothing was generated", "luffy": "one off-policy row", "grpo": "own rollouts only"}[
        algorithm
    ] in text
    assert ("no rollouts" in text) == (algorithm == "sft")
    assert "| gate |" not in text


def own_gate(solve_rate_P, step):
    """Half rollouts, half demonstration."""
    return torch.full_like(solve_rate_P, 0.5), torch.full_like(solve_rate_P, 0.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trainer": {"gate": own_gate}}, "A custom gate, `own_gate`, mapped"),
        ({"gate": "linear", "sft_weight": 0.3}, "The weight of a prompt's rollouts was its solve rate s"),
        ({"gate_threshold": 0.25, "sft_weight": 0.3}, "If at most 1 of them was correct, the model was trained"),
        (
            {"gate_off_policy_threshold": 0.5},
            "if at most 2 of them were correct, on the demonstration with an off-policy",
        ),
    ],
)
def test_every_gate_is_described(tiny_model, tmp_path, options, sentence):
    trainer = make_trainer(tiny_model, tmp_path / "run", **options)
    trainer.create_model_card()
    text = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert sentence in text
    assert "Solve rate and demonstrations" not in text  # no step was trained
    if "sft_weight" in options:
        assert "0.3" in text


def test_an_adapter_is_loaded_onto_its_base_model_and_a_merged_one_on_its_own(tiny_model, tmp_path):
    lora = {"peft_config": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")}
    trainer, text = trained(tiny_model, tmp_path / "run", trainer=lora)
    assert "Only the weights of the adapter are included." in text
    assert "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base)" in text
    assert 'base = "path/to/tiny"' in text
    assert "| adapter | LORA, rank 4, alpha 8, on q_proj, v_proj |" in text
    assert "library_name: peft" in text
    assert re.search(r"Versions: .*peft \d", text)

    trainer.model = trainer.model.merge_and_unload()
    trainer.create_model_card()
    merged = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert "trained as an adapter, which has been merged into the weights" in merged
    assert "PeftModel" not in merged
    assert "library_name: transformers" in merged


def test_base_model_and_dataset_on_the_hub_are_in_the_metadata(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "run")
    trainer.model.config._name_or_path = "Qwen/Qwen2.5-Math-1.5B"
    trainer.create_model_card(dataset_name="openai/gsm8k", tags="math")
    data = ModelCard.load(tmp_path / "run" / "README.md").data
    assert (data.base_model, data["base_model_relation"]) == ("Qwen/Qwen2.5-Math-1.5B", "finetune")
    assert data.datasets == ["openai/gsm8k"]
    assert {"hpt", "trl", "math"} <= set(data.tags)
    text = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert "version of [Qwen/Qwen2.5-Math-1.5B](https://huggingface.co/Qwen/Qwen2.5-Math-1.5B). It was trained" in text
    adapter = replace(read_facts(tmp_path / "run"), form="adapter")
    assert model_card(adapter, None).data["base_model_relation"] == "adapter"
    check(model_card(adapter, HISTORY))


def test_a_local_base_model_is_traced_to_the_hub(tmp_path):
    (tmp_path / "sft").mkdir()
    ModelCard("---\nbase_model: Qwen/Qwen2.5-Math-1.5B\nlicense: apache-2.0\n---\n").save(
        tmp_path / "sft" / "README.md"
    )
    description = base_of(str(tmp_path / "sft"))
    assert description == {"base": "sft", "base_hub_id": "Qwen/Qwen2.5-Math-1.5B", "license": "apache-2.0"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt2", "gpt2"), ("a/b", "a/b"), ("./a/b", ""), ("/a", ""), ("a/b/c", ""), ("", ""), ("tests", "")],
)
def test_hub_ids_are_recognized(name, expected, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert hub_id(name) == expected


def test_evaluations_are_in_the_text_and_the_metadata(tiny_model, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    trainer, text = trained(tiny_model, tmp_path / "run", trainer={"eval_dataset": ROWS.select(range(4))}, **options)
    solved = next(entry["eval_hpt/solve_rate"] for entry in trainer.state.log_history if "eval_reward" in entry)
    assert f"| held-out rows, at step 1 | solve rate | {100 * solved:.1f}% | not computed |" in text

    facts = replace(read_facts(tmp_path / "run"), data=Data("openai/gsm8k", "openai/gsm8k", "main", "train"))
    metrics = [Metric("accuracy", "avg@32", 0.5, 0.4, 0.625), Metric("pass@k", "pass@8", 0.75, 0.7, 0.8)]
    aime = Result("AIME24", "HuggingFaceH4/aime_2024", "", "train", "30 problems", "temperature 0.6", metrics)
    card = model_card(facts, HISTORY, [aime])
    check(card)
    first, second, held_out = card.data.to_dict()["model-index"][0]["results"][0]["metrics"] + [
        card.data.to_dict()["model-index"][0]["results"][1]
    ]
    assert (first["value"], second["value"]) == (50.0, 75.0)
    assert held_out["dataset"]["type"] == "openai/gsm8k"
    assert held_out["metrics"][0]["value"] == round(100 * solved, 2)


def test_the_intervals_add_up():
    # Step 0: one of two prompts on its demonstration, a quarter solved; step 1: none, three quarters solved.
    assert intervals_of(HISTORY) == [
        {"steps": "1", "prompts": "2", "solved": "25.0%", "demonstrations": "50.0%"},
        {"steps": "2", "prompts": "2", "solved": "75.0%", "demonstrations": "0.0%"},
    ]
    long = pd.concat([HISTORY.assign(step=step) for step in range(11)])
    assert [row["steps"] for row in intervals_of(long)] == ["1 to 3", "4 to 6", "7 to 9", "10 to 11"]
    assert sum(int(row["prompts"]) for row in intervals_of(long)) == 44


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_history_without_rates_and_demonstrations_is_drawn_without_a_warning(tmp_path):
    plot_gate(HISTORY.assign(solve_rate=float("nan"), demonstration=0.0), tmp_path / "gate.png")
    assert (tmp_path / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_secrets_and_the_home_folder_are_removed_from_command_and_configuration():
    home = str(Path.home())
    argv = ["--config", f"{home}/a b.yaml", "--hub_token", TOKEN, "--lr", "1", f"--hub_token={TOKEN}", "--x", TOKEN]
    assert safe_command("hpt-trl train", argv) == "hpt-trl train --config '~/a b.yaml' --lr 1 --x 'hf_***'"
    config = {"hub_token": TOKEN, "a": [{"wandb_api_key": "k", "b": f"{home}/x"}], "max_tokens_per_forward": 7}
    assert without_secrets(config) == {"a": [{"b": "~/x"}], "max_tokens_per_forward": 7}
    assert yaml.safe_dump(without_secrets(config))


def test_push_without_a_repository_only_writes_the_card(tiny_model, tmp_path):
    trained(tiny_model, tmp_path / "run")
    (tmp_path / "run" / "README.md").unlink()
    assert "with 0 evaluations." in push(PushArguments(str(tmp_path / "run")))
    check(ModelCard.load(tmp_path / "run" / "README.md"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "The evaluation .* does not exist"),
        ("{}", "is not an output of `hpt-trl evaluate`"),
        ('{"settings": {"model": "base"}, "suites": {}}', "evaluates the model 'base'"),
    ],
)
def test_evaluations_of_another_model_are_refused(tiny_model, tmp_path, content, message):
    trainer = make_trainer(tiny_model, tmp_path / "run", rows=Dataset.from_list(list(ROWS)))
    trainer.create_model_card()
    path = tmp_path / "results.json"
    if content:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        push(PushArguments(str(tmp_path / "run"), evaluations=[str(path)]))


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="output_dir of an HPTTrainer run"):
        push(PushArguments(str(tmp_path)))
    (tmp_path / "hpt_run.json").write_text('{"data": {}}')
    with pytest.raises(ValueError, match="this version of hpt_trl"):
        push(PushArguments(str(tmp_path)))


EVIL = "a|b`c``<script>alert(1)</script>\n\n# h ${x}$ [x](javascript:alert(1)) ![y](http://evil.example/y.png)"
EVIL += ' \ud800 "z" \\'


def test_hostile_names_are_texts_of_the_card_and_nothing_else():
    facts = replace(
        read_facts(Path(__file__).parents[1] / "fixtures" / "run_0_1_0"),
        name=EVIL, base=EVIL, algorithm=EVIL, data=Data(EVIL.replace(" ", ""), config=EVIL, split=EVIL, note=EVIL),
        settings={"reward functions": EVIL, EVIL: "1"}, command=f"hpt-trl train --x '{EVIL}'", config={"a": EVIL},
        form="adapter", base_hub_id="", trackers={}, folder=EVIL, example=EVIL,
    )  # fmt: skip
    evaluated = Result(EVIL, "", "", "", EVIL, EVIL, [Metric("accuracy", EVIL, 0.5, 0.4, 0.6)])
    card = model_card(facts, HISTORY, [evaluated])
    assert card.data.model_name == EVIL
    str(card).encode()
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(card.text)
    leaves = [leaf for token in tokens for leaf in (token.children or [token])]
    assert not [leaf.content for leaf in leaves if leaf.type.startswith("html")]
    addresses = {leaf.attrs[name] for leaf in leaves for name in ("href", "src") if name in leaf.attrs}
    assert {re.sub(r"(?<=co/|om/).*", "", address) for address in addresses} == {
        "https://huggingface.co/",
        "https://github.com/",
        "gate.png",
    }
    cells = [sum(token.type == "td_open" for token in row) for row in rows_of(tokens)]
    assert set(cells) == {0, 2, 4}  # headers, options, and results
    shown = one_line(EVIL)
    texts = ["".join(leaf.content for leaf in token.children) for token in tokens if token.type == "inline"]
    assert {shown, f"{shown} ({shown})"} <= set(texts)
    assert [leaf.content for leaf in leaves if leaf.type == "code_inline"].count(shown) == 4
    usage, command, config = (token for token in tokens if token.type == "fence" and token.info != "bibtex")
    compile(usage.content, "usage", "exec")
    assert EVIL in command.content.replace("\\ud800", "\ud800")
    assert yaml.safe_load(config.content.replace("\\ud800", "\ud800"))["a"] == EVIL


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("3+4?", "prompt = '3+4?'"),
        ([{"role": "user", "content": "3+4?"}], "prompt = [{'role': 'user', 'content': '3+4?'}]"),
        ("x" * 100, "What is 12 * 7 + 5?"),
    ],
)
def test_an_unpublished_card_names_its_folder_and_asks_a_question_of_the_run(
    tiny_model, tmp_path, monkeypatch, prompt, shown
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_facts, "_MAX_EXAMPLE", 80)
    rows = Dataset.from_list([row | {"prompt": prompt} for row in ROWS])
    trainer = make_trainer(tiny_model, Path("runs/mine"), rows=rows)
    trainer.create_model_card()
    card = Path("runs/mine/README.md").read_text()
    assert 'model="runs/mine")' in card
    assert shown in card
    assert str(tmp_path) not in card


def rows_of(tokens):
    """The tokens of each row of the tables."""
    ends = [number for number, token in enumerate(tokens) if token.type == "tr_close"]
    starts = [number for number, token in enumerate(tokens) if token.type == "tr_open"]
    return [tokens[start:end] for start, end in zip(starts, ends)]
