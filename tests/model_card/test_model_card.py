"""The model card of every kind of run: no holes in its sentences, metadata the Hub takes, nothing that is not so."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig

from hpt_trl.commands.push import PushArguments, push
from hpt_trl.common.masking import safe_command, without_secrets
from hpt_trl.model_card.model_card import Metric, Result, model_card, stretches_of
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
    """The card's text, after what holds for every card."""
    text = str(card)
    assert card_errors(text) == []
    assert "licence" not in text
    assert ModelCard(text).data.to_dict() == card.data.to_dict()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for hole in ("None", "nan", "[]", "``", "()", "{", "  |  |", ", ,", " ,", "undefined"):
        assert hole not in prose, (hole, prose)
    assert "\n\n\n" not in text
    return text


def trained(model, folder, **options):
    """A run of one step and its card."""
    trainer = make_trainer(model, folder, max_steps=1, **options)
    trainer.train()
    trainer.create_model_card()
    return trainer, check(ModelCard.load(folder / "README.md"))


def test_a_local_base_is_told_by_its_name(tiny_model, tmp_path):
    _, text = trained(tiny_model, tmp_path / "run")
    assert "# run\n\nThis is the local model `tiny`, trained by Hybrid Post-Training ([HPT]" in text
    assert str(Path(tiny_model).parent) not in text
    assert "Where none was right, the prompt learned from its demonstration by likelihood (weight 1)" in text
    assert "At every step the model answered each prompt 4 times." in text
    assert "| 1 | 4 | " in text  # one step of 4 prompts
    assert "Data: given in Python, 16 rows." in text
    assert "The run was started from Python" in text
    assert "arXiv 2509.04419" in text
    assert "vonwerra2020trl" in text
    assert (tmp_path / "run" / "gate.png").read_bytes().startswith(b"\x89PNG")


def test_without_the_gate_it_is_grpo_and_says_so(tiny_model, tmp_path):
    rows = ROWS.remove_columns("demonstration")
    _, text = trained(tiny_model, tmp_path / "run", gate="off", rows=rows)
    assert "trained by reinforcement learning on its own answers (GRPO)" in text
    assert "no demonstration was used" in text
    assert "arXiv 2402.03300" in text  # DeepSeekMath's
    assert "2509.04419" not in text


@pytest.mark.parametrize("algorithm", ["sft", "luffy", "grpo"])
def test_other_algorithms_are_named(tiny_model, tmp_path, algorithm):
    _, text = trained(tiny_model, tmp_path / "run", algorithm=algorithm)
    assert f"trained by `{algorithm}`" in text
    assert {"sft": "nothing was generated", "luffy": "joined its prompt's answers", "grpo": "own answers only"}[
        algorithm
    ] in text
    assert ("nothing was tried" in text) == (algorithm == "sft")
    assert "| gate |" not in text


def own_gate(solve_rate_P, step):
    """Half of each."""
    return torch.full_like(solve_rate_P, 0.5), torch.full_like(solve_rate_P, 0.5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trainer": {"gate": own_gate}}, "A gate written for this run, `own_gate`, turned"),
        ({"gate": "linear", "sft_weight": 0.3}, "weighed as much as the share of them that was right"),
        ({"gate_threshold": 0.25, "sft_weight": 0.3}, "Where at most 1 of them was right, the prompt learned"),
        ({"gate_off_policy_threshold": 0.5}, "where at most 2 of them were right, from it by off-policy"),
    ],
)
def test_every_gate_is_told(tiny_model, tmp_path, options, sentence):
    trainer = make_trainer(tiny_model, tmp_path / "run", **options)
    trainer.create_model_card()
    text = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert sentence in text
    assert "What the prompts learned from" not in text  # no step was made
    if "sft_weight" in options:
        assert "0.3" in text


def test_an_adapter_is_loaded_onto_its_base_and_a_merged_one_by_itself(tiny_model, tmp_path):
    lora = {"peft_config": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")}
    trainer, text = trained(tiny_model, tmp_path / "run", trainer=lora)
    assert "as an adapter, whose weights alone are here" in text
    assert "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base)" in text
    assert 'base = "path/to/tiny"' in text
    assert "| adapter | LORA, rank 4, alpha 8, on q_proj, v_proj |" in text
    assert "library_name: peft" in text
    assert re.search(r"Versions: .*peft \d", text)

    trainer.model = trainer.model.merge_and_unload()
    trainer.create_model_card()
    merged = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert "as an adapter, which is merged into the weights here" in merged
    assert "PeftModel" not in merged
    assert "library_name: transformers" in merged


def test_bases_and_data_of_the_hub_are_metadata(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "run")
    trainer.model.config._name_or_path = "Qwen/Qwen2.5-Math-1.5B"
    trainer.create_model_card(dataset_name="openai/gsm8k", tags="math")
    data = ModelCard.load(tmp_path / "run" / "README.md").data
    assert (data.base_model, data["base_model_relation"]) == ("Qwen/Qwen2.5-Math-1.5B", "finetune")
    assert data.datasets == ["openai/gsm8k"]
    assert {"hpt", "trl", "math"} <= set(data.tags)
    text = check(ModelCard.load(tmp_path / "run" / "README.md"))
    assert "This is [Qwen/Qwen2.5-Math-1.5B](https://huggingface.co/Qwen/Qwen2.5-Math-1.5B), trained by" in text
    adapter = replace(read_facts(tmp_path / "run"), form="adapter")
    assert model_card(adapter, None).data["base_model_relation"] == "adapter"
    check(model_card(adapter, HISTORY))


def test_a_local_base_made_from_one_of_the_hub_is_traced(tmp_path):
    (tmp_path / "sft").mkdir()
    ModelCard("---\nbase_model: Qwen/Qwen2.5-Math-1.5B\nlicense: apache-2.0\n---\n").save(
        tmp_path / "sft" / "README.md"
    )
    found = base_of(str(tmp_path / "sft"))
    assert found == {"base": "sft", "base_hub_id": "Qwen/Qwen2.5-Math-1.5B", "license": "apache-2.0"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt2", "gpt2"), ("a/b", "a/b"), ("./a/b", ""), ("/a", ""), ("a/b/c", ""), ("", ""), ("tests", "")],
)
def test_what_may_be_on_the_hub(name, expected, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert hub_id(name) == expected


def test_evaluations_are_told_and_are_metadata(tiny_model, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4}
    trainer, text = trained(tiny_model, tmp_path / "run", trainer={"eval_dataset": ROWS.select(range(4))}, **options)
    solved = next(entry["eval_hpt/solve_rate"] for entry in trainer.state.log_history if "eval_reward" in entry)
    assert f"| held-out rows of the run, at step 1 | answers right | {100 * solved:.1f} % | not computed |" in text

    facts = replace(read_facts(tmp_path / "run"), data=Data("openai/gsm8k", "openai/gsm8k", "main", "train"))
    metrics = [Metric("accuracy", "avg@32", 0.5, 0.4, 0.625), Metric("pass@k", "pass@8", 0.75, 0.7, 0.8)]
    aime = Result("AIME24", "HuggingFaceH4/aime_2024", "", "train", "30 problems", "temperature 0.6", metrics)
    card = model_card(facts, HISTORY, [aime])
    check(card)
    first, second, own = card.data.to_dict()["model-index"][0]["results"][0]["metrics"] + [
        card.data.to_dict()["model-index"][0]["results"][1]
    ]
    assert (first["value"], second["value"]) == (50.0, 75.0)
    assert own["dataset"]["type"] == "openai/gsm8k"
    assert own["metrics"][0]["value"] == round(100 * solved, 2)


def test_the_stretches_add_up():
    # Step 0: one of two prompts on its demonstration, a quarter right; step 1: none, three quarters right.
    assert stretches_of(HISTORY) == [
        {"steps": "1", "prompts": "2", "solved": "25.0%", "demonstrations": "50.0%"},
        {"steps": "2", "prompts": "2", "solved": "75.0%", "demonstrations": "0.0%"},
    ]
    long = pd.concat([HISTORY.assign(step=step) for step in range(11)])
    assert [row["steps"] for row in stretches_of(long)] == ["1 to 3", "4 to 6", "7 to 9", "10 to 11"]
    assert sum(int(row["prompts"]) for row in stretches_of(long)) == 44


def test_secrets_and_the_home_folder_stay_out_of_command_and_configuration():
    home = str(Path.home())
    argv = ["--config", f"{home}/a b.yaml", "--hub_token", TOKEN, "--lr", "1", f"--hub_token={TOKEN}", "--x", TOKEN]
    assert safe_command("hpt-trl train", argv) == "hpt-trl train --config '~/a b.yaml' --lr 1 --x 'hf_***'"
    config = {"hub_token": TOKEN, "a": [{"wandb_api_key": "k", "b": f"{home}/x"}], "max_tokens_per_forward": 7}
    assert without_secrets(config) == {"a": [{"b": "~/x"}], "max_tokens_per_forward": 7}
    assert yaml.safe_dump(without_secrets(config))


def test_push_without_a_repository_writes_the_card_only(tiny_model, tmp_path):
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
def test_evaluations_that_are_not_of_this_model_are_refused(tiny_model, tmp_path, content, message):
    trainer = make_trainer(tiny_model, tmp_path / "run", rows=Dataset.from_list(list(ROWS)))
    trainer.create_model_card()
    path = tmp_path / "results.json"
    if content:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        push(PushArguments(str(tmp_path / "run"), evaluations=[str(path)]))


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="output_dir of a run"):
        push(PushArguments(str(tmp_path)))
    (tmp_path / "hpt_run.json").write_text('{"data": {}}')
    with pytest.raises(ValueError, match="this version of hpt_trl"):
        push(PushArguments(str(tmp_path)))
