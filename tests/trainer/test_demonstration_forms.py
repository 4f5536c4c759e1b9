"""A demonstration of every form is read, or refused with what is wrong with it."""

import pytest
from datasets import Dataset, IterableDataset

from hpt_trl.trainer.demonstration_forms import chosen_candidate, form_fault, is_missing, messages_of
from hpt_trl.verifier.verdicts import accuracy_reward
from tests.tiny import ROWS, make_trainer

CHAT = [{"role": "user", "content": "2+2"}]
FOUR = [{"role": "assistant", "content": "four"}]


@pytest.mark.parametrize(
    "demonstration",
    [
        "four",
        {"text": "four"},
        {"role": "assistant", "content": "four"},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}],
            "name": None,
        },
        [{"type": "text", "text": "four"}],
        {"from": "gpt", "value": "four"},
        [{"from": "gpt", "value": "four"}],
        [{"from": "gpt", "value": "four", "role": None, "content": None}],
    ],
    ids=repr,
)
def test_every_form_of_one_text(demonstration):
    assert messages_of(CHAT, demonstration) == messages_of("2+2", demonstration) == FOUR


def test_turns_of_sharegpt_are_messages():
    turns = [{"from": "gpt", "value": "No."}, {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "four"}]
    roles = [message["role"] for message in messages_of(CHAT, turns)]
    assert roles == ["assistant", "user", "assistant"]


@pytest.mark.parametrize(
    "missing",
    [
        *(None, float("nan"), "", " \n", [], [None], [""], {}),
        *({"from": "gpt", "value": ""}, [{"role": "assistant", "content": ""}]),
    ],
    ids=repr,
)
def test_nothing_is_missing_and_not_malformed(missing):
    assert is_missing(missing)


def test_something_to_learn_from_is_not_missing():
    assert not is_missing("x")
    assert not is_missing([{"role": "assistant", "content": None, "tool_calls": [{}]}])


@pytest.mark.parametrize(
    ("demonstration", "fault"),
    [
        (5, "must be a text or messages, got int"),
        (1.5, "must be a text or messages, got float"),
        (b"four", "must be a text or messages, got bytes"),
        ([1, 2], "must have a role and a content, got int"),
        ({"answer": "four"}, "must have a role and a text, got role None"),
        ({"role": "assistant", "content": 5}, "content of type int"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], r"parts of type \['image'\]"),
        ([{"role": "user", "content": "four"}], "must end with the assistant's"),
        ({"role": "assistant", "content": "", "tool_calls": 5}, "tool calls must be a list, got int"),
        ({"from": ["gpt"], "value": "four"}, "must have a role and a text, got role None"),
        ([{"type": "text", "text": 4}], r"parts of type \['text of type int'\]"),
    ],
)
def test_other_forms_are_refused_with_what_is_wrong(demonstration, fault):
    with pytest.raises(ValueError, match=fault):
        messages_of(CHAT, demonstration)
    assert form_fault(CHAT, demonstration)


def test_of_candidate_texts_the_first_right_one_is_taken():
    texts = ["", "four", r"It is \boxed{5}.", r"It is \boxed{4}.", r"\boxed{4}"]
    assert chosen_candidate(texts, "4") == r"It is \boxed{4}."
    assert chosen_candidate(texts, None) == "four"
    assert chosen_candidate(FOUR, "4") == FOUR
    with pytest.raises(ValueError, match="accepts none of the 4 candidate texts"):
        chosen_candidate(texts, "7")


@pytest.mark.parametrize("demonstration", [5, {"answer": "4"}, [{"from": "human", "value": "4"}]], ids=repr)
def test_data_of_malformed_demonstrations_are_refused_before_the_run(tiny_model, tmp_path, demonstration):
    rows = [{"prompt": row["prompt"], "demonstration": demonstration} for row in ROWS]
    with pytest.raises(
        ValueError, match=r"All 16 demonstrations of the training data are malformed.* The first: A dem"
    ):
        make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows))


def test_form_and_length_are_counted_apart(tiny_model, tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[0]["demonstration"], rows[1]["demonstration"], rows[2]["demonstration"] = 5, "x" * 50, [r"\boxed{2}", "5"]
    rows[3]["demonstration"] = float("nan")
    stream = IterableDataset.from_generator(lambda: iter(rows))
    # A gate that asks for every demonstration.
    options = {"gate_threshold": 1.0, "gate_success_value": 2.0, "demonstration_overflow": "refuse", "max_steps": 1}
    trainer = make_trainer(tiny_model, tmp_path, rows=stream, max_demonstration_length=20, **options)
    trainer.train()
    counts = {
        name: trainer.state.log_history[0][f"demonstrations/{name}"] for name in ("missing", "refused", "malformed")
    }
    assert counts == {"missing": 1, "refused": 2, "malformed": 1}


def test_candidates_may_be_missing_in_part(tiny_model, tmp_path):
    rows = [{"prompt": row["prompt"], "demonstration": [None, row["demonstration"]]} for row in ROWS]
    trainer = make_trainer(tiny_model, tmp_path, rows=Dataset.from_list(rows), gate_threshold=1.0, max_steps=1)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["hpt/demonstration_share"] == 1
    assert log["demonstrations/refused"] == log["demonstrations/missing"] == 0


@pytest.mark.parametrize("named", [False, True])
def test_evaluation_data_without_a_solution_are_refused_before_the_run(tiny_model, tmp_path, named):
    evaluation = ROWS.remove_columns("solution")
    options = {"eval_dataset": {"math": evaluation} if named else evaluation}
    with pytest.raises(
        ValueError, match=r"'accuracy_reward' needs the columns \['solution'\], which the evaluation data"
    ):
        make_trainer(tiny_model, tmp_path, reward=accuracy_reward, trainer=options)
    make_trainer(tiny_model, tmp_path, reward=accuracy_reward, trainer={"eval_dataset": ROWS})
