"""The model's context bounds a prompt together with what follows it: a demonstration, or an answer."""

import logging

import pytest
from datasets import Dataset
from peft import PromptTuningConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import ROWS, make_trainer, relative_error, step_gradient
from tests.trainer.model_families import EXACT, build_family, loop_gradient

# 250 and 4 tokens: of the first demonstration of 21 and EOS, 6 tokens fit into a context of 256.
LONG = Dataset.from_list(
    [
        {"prompt": "9" * 250, "demonstration": "the answer is seventy", "solution": "7"},
        *({"prompt": "2+2?", "demonstration": "four", "solution": "4"} for _ in range(3)),
    ]
)
OPTIONS = {"rows": LONG, "gate_threshold": 1.0, "max_demonstration_length": 64, "max_completion_length": 2, **EXACT}


@pytest.fixture(scope="module", params=["gpt2", "qwen2"])
def model(request, tmp_path_factory):
    """A model with learned positions, which has none behind its context, and one with rotary ones."""
    return build_family(request.param, tmp_path_factory.mktemp("models") / request.param)


def test_a_demonstration_is_cut_where_the_context_ends(model, tmp_path):
    found = step_gradient(model, tmp_path, **OPTIONS)
    tokenizer = AutoTokenizer.from_pretrained(model)
    sequences = [
        (tokenizer(row["prompt"])["input_ids"], [*tokenizer(row["demonstration"])["input_ids"], tokenizer.eos_token_id])
        for row in LONG
    ]
    sequences[0] = (sequences[0][0], sequences[0][1][:6])
    expected = loop_gradient(AutoModelForCausalLM.from_pretrained(model), sequences)
    assert relative_error(found, expected) < 1e-5


def counts_of(trainer) -> dict[str, float]:
    trainer.train()
    log = trainer.state.log_history[0]
    return {name: log[f"demonstrations/{name}"] for name in ("cut", "refused")}


def test_a_demonstration_is_refused_where_the_options_say_so(model, tmp_path):
    trainer = make_trainer(model, tmp_path, max_steps=1, demonstration_overflow="refuse", **OPTIONS)
    assert counts_of(trainer) == {"cut": 0, "refused": 1}


def test_virtual_tokens_take_room_in_the_context(tiny_model, tmp_path):
    def counts(virtual):
        adapter = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual)
        options = OPTIONS | {"rows": LONG.map(lambda row: {"prompt": row["prompt"][:230]})}
        return counts_of(make_trainer(tiny_model, tmp_path, max_steps=1, trainer={"peft_config": adapter}, **options))

    # 230 + 22 = 252 tokens
    assert counts(4) == {"cut": 0, "refused": 0}
    assert counts(5) == {"cut": 1, "refused": 0}


@pytest.mark.parametrize(("length", "is_warned"), [(200, False), (201, True)])
def test_answers_that_may_not_fit_are_warned_of(tiny_model, tmp_path, caplog, length, is_warned):
    rows = Dataset.from_list([*ROWS, ROWS[0] | {"prompt": "9" * length}])
    with caplog.at_level(logging.WARNING):
        make_trainer(tiny_model, tmp_path, rows=rows, max_completion_length=56)
    assert (f"has {length} tokens and max_completion_length is 56" in caplog.text) == is_warned
