"""Each known dataset, in its real column layout, is converted to prompt, demonstration and solution."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpt_trl.data import INSTRUCTION, prepare_rows
from hpt_trl.data.columns import answer_text, converter, is_ready, named_converter
from hpt_trl.data.refusal_report import Reason, RefusedError
from tests.data import samples

SAMPLES = [rows[0] for name, rows in vars(samples).items() if name.isupper() and name != "THOUGHT"]
KEYS = ["role", "content", "from", "value", "ground_truth", "tool_calls", "type", "text"]

PROMPT = [{"role": "user", "content": f"What is $6 \\cdot 7$?\n{INSTRUCTION}"}]
MATH_PROMPT = [{"role": "user", "content": f"Compute $6 \\cdot 7$.\n{INSTRUCTION}"}]
QUESTION = [{"role": "user", "content": "What is 6*7?"}]
BOX = "It is \\boxed{42}."


@pytest.mark.parametrize(
    ("rows", "prompt", "demonstration", "solution"),
    [
        (samples.LUFFY, samples.LUFFY[0]["prompt"], samples.THOUGHT, "42"),
        (
            samples.GSM8K,
            [{"role": "user", "content": f"{samples.GSM8K[0]['question']}\n{INSTRUCTION}"}],
            "She pays 3*400=$1200.\nThe final answer is \\boxed{1200}.",
            "1200",
        ),
        (samples.OPENR1, PROMPT, samples.THOUGHT, "42"),
        (samples.DEEPMATH, PROMPT, samples.THOUGHT, "42"),
        (
            samples.OLYMPIAD,
            [{"role": "user", "content": f"Solve $x^2 = 9$.\n{INSTRUCTION}"}],
            "Either sign does: \\boxed{3, -3}.",
            "$3, -3$",
        ),
        (samples.MATH, MATH_PROMPT, "It is $\\boxed{42}$.", "42"),
        (samples.MATH_ANSWER, MATH_PROMPT, "It is $\\boxed{42}$.", "42"),
        (samples.COMPLETION, "What is 6*7?\n", BOX, "42"),
        (samples.COMPLETION_CHAT, QUESTION, BOX, "42"),
        (samples.CHAT, samples.CHAT[0]["messages"][:3], BOX, "42"),
        (samples.SHAREGPT, QUESTION, BOX, "42"),
        (samples.READY, "6*7=", "\\boxed{42}", "42"),
    ],
    ids=[
        "luffy", "gsm8k", "openr1", "deepmath", "olympiad", "math", "math-answer", "completion", "completion-chat",
        "chat", "sharegpt", "ready",
    ],
)  # fmt: skip
def test_known_layouts_are_converted_to_the_three_columns(rows, prompt, demonstration, solution):
    kept, report = prepare_rows(rows, rows[0])
    assert (report.read, report.kept, report.refused.total()) == (1, 1, 0)
    assert {name: kept[0][name] for name in ("prompt", "demonstration", "solution")} == {
        "prompt": prompt,
        "demonstration": demonstration,
        "solution": solution,
    }


def test_generations_that_the_dataset_marks_as_correct_come_first():
    example = converter(samples.OPENR1[0])(samples.OPENR1[0])
    # Correct and complete: generation 3. Complete only: generation 1. Neither: generation 2.
    assert [text[-3:] for text in example.demonstrations] == ["2}.", "41}", "mes"]


def test_without_flags_generations_keep_their_order():
    row = samples.OPENR1[0] | {"correctness_math_verify": None, "is_reasoning_complete": None}
    assert converter(row)(row).demonstrations == tuple(samples.OPENR1[0]["generations"])


def test_a_named_column_may_have_several_candidates():
    row = {"ask": "6*7?", "tries": ["\\boxed{41}", None, " ", "\\boxed{42}"], "gold": [42]}
    example = named_converter(row, "ask", "tries", "gold")(row)
    assert example.demonstrations == ("\\boxed{41}", "\\boxed{42}")
    assert example.solution == "42"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((None, "tries", None), "Name the prompt_column"),
        (("ask", None, None), "Name the prompt_column"),
        (("ask", "trys", None), r"no column 'trys'; it has \['ask', 'tries'\]"),
    ],
)
def test_wrong_column_names_are_errors(names, message):
    with pytest.raises(ValueError, match=message):
        named_converter(["ask", "tries"], *names)


def test_unknown_layouts_are_errors():
    with pytest.raises(ValueError, match=r"has the columns \['a', 'b'\]"):
        converter(["b", "a"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72, "72"),
        (72.0, "72"),  # from a column of integers with a missing value
        (0.5, "0.5"),
        (-3, "-3"),
        (1e300, "1e+300"),
        ("1,234", "1,234"),
        (" 7\r\n", "7"),
        ("\\boxed{204}", "204"),
        ("$\\frac{1}{2}$", "$\\frac{1}{2}$"),
        ("\\boxed{1} or \\boxed{2}", "\\boxed{1} or \\boxed{2}"),
        (["$5$"], "$5$"),
        (["$1$", "$2$"], "$1, 2$"),
        ([1, 2.0], "$1, 2$"),
        ("½ π", "½ π"),
        ("C", "C"),
    ],
)
def test_answers_are_converted_to_text(value, text):
    assert answer_text(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.NO_SOLUTION),
        (math.nan, Reason.NO_SOLUTION),
        ("NaN", Reason.NO_SOLUTION),
        ("  \n", Reason.NO_SOLUTION),
        ([], Reason.NO_SOLUTION),
        ([None], Reason.NO_SOLUTION),
        ({"value": 3}, Reason.MALFORMED),
        ("\ud800", Reason.MALFORMED),
    ],
)
def test_missing_and_malformed_answers_are_refused(value, reason):
    with pytest.raises(RefusedError) as error_info:
        answer_text(value)
    assert error_info.value.reason == reason


BAD_ROWS = [
    ({"prompt": None, "solution": "1"}, Reason.NO_PROMPT),
    ({"prompt": math.nan, "solution": "1"}, Reason.NO_PROMPT),
    ({"prompt": [{"role": "system", "content": "s"}], "solution": "1"}, Reason.NO_PROMPT),
    ({"prompt": 3, "solution": "1"}, Reason.MALFORMED),
    ({"prompt": ["hello"], "solution": "1"}, Reason.MALFORMED),
    ({"prompt": [{"content": "hello"}], "solution": "1"}, Reason.MALFORMED),
    ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "solution": "1"}, Reason.MALFORMED),
    ({"prompt": "a", "solution": None}, Reason.NO_SOLUTION),
    ({"prompt": "a", "solution": "1", "demonstration": 3}, Reason.MALFORMED),
    ({"prompt": "a", "solution": "1", "demonstration": {"role": "user", "content": "x"}}, Reason.MALFORMED),
    ({"prompt": "a", "solution": "1", "demonstration": [{"role": "assistant", "content": "x"}] * 2}, Reason.MALFORMED),
    ({"prompt": "a", "completion": "no box"}, Reason.NO_SOLUTION),
    ({"prompt": "a", "reward_model": "1"}, Reason.MALFORMED),
    ({"prompt": "a", "reward_model": {"style": "rule"}}, Reason.NO_SOLUTION),
    ({"problem": "a", "solution": "no box"}, Reason.NO_SOLUTION),
    ({"question": "a", "answer": "no mark"}, Reason.MALFORMED),
    ({"question": "a", "answer": "#### "}, Reason.NO_SOLUTION),
    ({"question": "a", "answer": None}, Reason.NO_SOLUTION),
    ({"question": "", "answer": "x\n#### 3"}, Reason.NO_PROMPT),
    ({"messages": None}, Reason.NO_PROMPT),
    ({"messages": "hello"}, Reason.MALFORMED),
    ({"messages": [{"role": "assistant", "content": "\\boxed{1}"}]}, Reason.NO_PROMPT),
    ({"messages": [{"role": "user", "content": "a"}]}, Reason.NO_SOLUTION),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [1]}]}, Reason.MALFORMED),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_bad_rows_are_refused_with_the_right_reason(row, reason):
    with pytest.raises(RefusedError) as error_info:
        converter(row)(row)
    assert error_info.value.reason == reason


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300)
@given(data=st.data())
def test_any_row_is_either_converted_or_refused(data):
    row = data.draw(st.sampled_from(SAMPLES))
    changed = {name: data.draw(JSON) for name in data.draw(st.sets(st.sampled_from(sorted(row)), min_size=1))}
    try:
        example = converter(row)({**row, **changed})
    except RefusedError:
        return
    assert isinstance(example.prompt, str | list)
    assert all(isinstance(text, str) and text.strip() for text in example.demonstrations)
    assert example.solution.strip() == example.solution != ""


def test_which_layouts_need_no_conversion():
    assert is_ready(["prompt"])
    assert is_ready(["prompt", "solution", "messages"])
    assert not is_ready(samples.LUFFY[0])
    assert not is_ready(samples.GSM8K[0])
