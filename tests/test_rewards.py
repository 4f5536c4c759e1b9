import threading

import pytest

from hpt_trl.rewards import accuracy_reward, final_answer, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{33}", "33"),
        (r"\boxed{1} no, \boxed{2}", "2"),  # the last box decides
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{4", "3"),  # cut off: the last closed one
        ("33", None),
        ("", None),
        (r"<think>\boxed{1}</think> \boxed{2}", "2"),
        (r"<think>\boxed{1}</think> I forgot", None),
        (r"<think> \boxed{1}", None),  # never closed: no answer
        (r"\boxed{1}</think>\boxed{2}", "2"),  # the generation prompt opened it
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


def test_last_boxed_of_nested_boxes_is_the_inner_one():
    assert last_boxed(r"\boxed{a \boxed{b}}") == "b"


def test_ten_thousand_opened_boxes_are_read_in_one_pass():
    assert last_boxed(r"\boxed{" * 10_000) is None  # minutes, if each opening were read to the end


def test_reward_takes_texts_and_conversations():
    texts = [r"\boxed{0.5}", r"\boxed{7}", "no box", r"\boxed{18}"]
    solutions = [r"$\frac{1}{2}$", "8", "3", "18"]
    assert accuracy_reward(texts, solutions) == [1.0, 0.0, 0.0, 1.0]
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    assert accuracy_reward(chats, solutions) == [1.0, 0.0, 0.0, 1.0]


def test_an_unreadable_solution_is_unscorable():
    assert accuracy_reward([r"\boxed{1}"], [""]) == [None]


def test_verdicts_hold_off_the_main_thread_where_alarms_do_not_work():
    found = []
    worker = threading.Thread(target=lambda: found.extend(accuracy_reward([r"\boxed{1/4}"], ["0.25"])))
    worker.start()
    worker.join()
    assert found == [1.0]


def test_answers_are_logged_beside_the_completions():
    columns = {}
    accuracy_reward([r"\boxed{1}", "?"], ["1", "1"], log_extra=lambda name, values: columns.update({name: values}))
    assert columns == {"answer": ["1", ""]}
