import threading
import time

import pytest

from hpt_trl.trainer.checks import gate_reward_index
from hpt_trl.verifier.verdicts import accuracy_reward, final_answer, final_choice, format_reward, judge, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{33}", "33"),
        (r"\boxed{1} no, \boxed{2}", "2"),  # the last box counts
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{4", "3"),  # truncated: the last closed box counts
        ("33", None),
        ("", None),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> I forgot", None),
        (r"<think> \boxed{1}", None),  # never closed, so there is no answer
        (r"\boxed{1}</think>\boxed{2}", "2"),  # the generation prompt has the opening tag
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


def test_last_boxed_of_nested_boxes_is_the_inner_one():
    assert last_boxed(r"\boxed{a \boxed{b}}") == "b"


def test_ten_thousand_opening_boxes_are_parsed_in_one_pass():
    assert last_boxed(r"\boxed{" * 10_000) is None  # minutes, if each box were scanned to the end


def test_accuracy_reward_accepts_texts_and_conversations():
    texts = [r"\boxed{0.5}", r"\boxed{7}", "no box", r"\boxed{18}"]
    solutions = [r"$\frac{1}{2}$", "8", "3", "18"]
    assert accuracy_reward(texts, solutions) == [1.0, 0.0, 0.0, 1.0]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    assert accuracy_reward(chats, solutions) == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("#### 72", r"\boxed{72}", r"\boxed{7}"),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nTogether 1072.\n#### 1,072", r"\boxed{1072}", r"\boxed{24}"),
        ("<answer>5</answer>", r"\boxed{5}", r"\boxed{6}"),
        ("<think>2+3</think><answer> 5 </answer>", r"\boxed{5}", r"\boxed{6}"),
        ("Answer: 5", r"\boxed{5}", r"\boxed{6}"),
        ("The final answer is: $\\frac{1}{2}$", r"\boxed{0.5}", r"\boxed{2}"),
        ("A: 5", r"\boxed{5}", r"\boxed{6}"),
        ("A: 5", "The answer is (A).", r"\boxed{6}"),
        ("B: 5", "The answer is (B).", "The answer is (C)."),
        ("Answer: C", "The answer is (C).", "The answer is (D)."),
    ],
)
def test_golds_in_known_forms_are_read(gold, right, wrong):
    assert accuracy_reward([right, wrong], [gold] * 2) == [1.0, 0.0]


def test_a_solution_written_out_is_unreadable_and_no_wrong_answer():
    prose = "Natalia sold half as many clips in May as in April, so she sold 24 clips in May, and 72 in both."
    assert accuracy_reward([r"\boxed{24}", r"\boxed{72}"], [prose] * 2) == [None, None]


UNCLOSED, CLOSED = r"Perhaps \boxed{5}, but wait", r"2 + 3</think> \boxed{5}"


@pytest.mark.parametrize(
    ("prompts", "opens_thinking", "expected"),
    [
        (["2+3?<think>\n"] * 2, None, [0.0, 1.0]),
        (["2+3?"] * 2, None, [1.0, 1.0]),
        # Of a conversation, the trainer knows what its template opens.
        ([[{"role": "user", "content": "2+3?"}]] * 2, [True, True], [0.0, 1.0]),
        ([[{"role": "user", "content": "2+3?"}]] * 2, [False, False], [1.0, 1.0]),
    ],
)
def test_a_thought_that_the_prompt_opens_must_be_closed(prompts, opens_thinking, expected):
    for reward in (accuracy_reward, format_reward):
        options = {"prompts": prompts, "solution": ["5", "5"]}
        assert reward(completions=[UNCLOSED, CLOSED], opens_thinking=opens_thinking, **options) == expected


def test_the_prompt_decides_for_each_completion():
    opened = [True, False]
    assert accuracy_reward([UNCLOSED] * 2, ["5"] * 2, opens_thinking=opened) == [0.0, 1.0]
    assert [str(verdict) for verdict in judge([UNCLOSED] * 2, ["5"] * 2, opens_thinking=opened)] == [
        "unparseable answer",
        "right",
    ]


def test_an_unparseable_solution_has_no_reward():
    assert accuracy_reward([r"\boxed{1}"], [""]) == [None]


def test_accuracy_reward_works_outside_the_main_thread_where_alarms_do_not():
    rewards = []
    worker = threading.Thread(target=lambda: rewards.extend(accuracy_reward([r"\boxed{1/4}"], ["0.25"])))
    worker.start()
    worker.join()
    assert rewards == [1.0]


def test_answers_and_verdicts_are_logged_with_the_completions():
    columns = {}
    accuracy_reward([r"\boxed{1}", "?"], ["1", "1"], log_extra=lambda name, values: columns.update({name: values}))
    assert columns == {"answer": ["1", ""], "solution": ["1", "1"], "verdict": ["right", "unparseable answer"]}


def test_the_fraction_of_each_verdict_is_logged():
    logged = {}
    texts = [r"\boxed{1}", r"\boxed{2}", "?", r"\boxed{4}"]
    assert accuracy_reward(texts, ["1", "1", "1", ""], log_metric=logged.__setitem__) == [1.0, 0.0, 0.0, None]
    assert logged == {
        "verdicts/right": 0.25, "verdicts/wrong": 0.25, "verdicts/unparseable_answer": 0.25,
        "verdicts/unparseable_gold": 0.25, "verdicts/timed_out": 0.0,
    }  # fmt: skip


def test_contents_in_parts_and_empty_completions_are_accepted():
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed"}, {"type": "text", "text": "{1/2}"}]}]
    assert accuracy_reward([parts, [], [{"role": "assistant", "content": None}]], ["0.5"] * 3) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C).", "C"),
        ("A) no\nB) yes\nAnswer: B", "B"),
        ("The answer is (A). No, the answer is **B**.", "B"),
        (r"\boxed{A}, wait: \boxed{\text{(D)}}", "D"),
        ("<think>The answer is A</think>\n(B)", "B"),
        ("<think>The answer is A", None),
        ("A dog has four legs, and vitamin C is one of many.", None),
        ("The answer is a dog.", None),
        ("The answer is A or B.", None),
        ("Is the answer A?", None),
    ],
)
def test_final_choice(text, letter):
    assert final_choice(text) == letter


def test_stated_letters_count_only_if_the_gold_answer_is_a_letter():
    texts = ["The answer is (C).", "The answer is 7.", r"\boxed{C}"]
    assert accuracy_reward(texts, ["C", "7", "c+1"]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{1}", 1.0),
        (r"<think>a</think> \boxed{1}", 1.0),
        (r"a</think> \boxed{1}", 1.0),  # the generation prompt has the opening tag
        (r"<think>a \boxed{1}</think> \boxed{2}", 1.0),
        ("1", 0.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{1} \boxed{2}", 0.0),
        (r"\boxed{1} \boxed{2", 0.0),
        (r"<think>\boxed{1}", 0.0),
        (r"<think>a</think> b</think> \boxed{1}", 0.0),
        (r"<think>a<think>b</think> \boxed{1}", 0.0),
        (r"hm <think>a</think> \boxed{1}", 0.0),
    ],
)
def test_format_reward(text, reward):
    assert format_reward([text]) == [reward]
    assert format_reward([[{"role": "assistant", "content": text}]]) == [reward]


def test_the_gate_uses_accuracy_reward_among_several():
    names = ["format_reward", "accuracy_reward", "soft_overlong_punishment_reward"]
    assert gate_reward_index(names, None, is_needed=True) == 1
    assert gate_reward_index(names, "format_reward", is_needed=True) == 0
    with pytest.raises(ValueError, match="gate_reward must name"):
        gate_reward_index(["format_reward", "bonus"], None, is_needed=True)


@pytest.mark.parametrize("filler", [" ", "*", "(", "\\boxed{", "answer ", "answer: ", "\n", "{", "C", "$"])
def test_a_megabyte_is_parsed_in_one_pass(filler):
    text = "the answer" + filler * (2**20 // len(filler))
    start = time.process_time()
    final_choice(text)
    final_answer(text)
    format_reward([text])
    assert time.process_time() - start < 30  # hours, if any pattern needed quadratic time
