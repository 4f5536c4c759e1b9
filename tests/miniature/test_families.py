import random
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl.comparison.held_out_eval import MAX_COMPLETION_LENGTH, is_correct
from hpt_trl.miniature.bases import Base, build_base
from hpt_trl.miniature.families import FAMILIES, IN_DISTRIBUTION, SUITES, sample_row, suite_rows, training_rows
from hpt_trl.miniature.tasks import split_of
from hpt_trl.verifier.verdicts import judge


def test_no_question_is_trained_on_and_asked():
    trained_on = {
        row["prompt"] for suite in SUITES for seed in range(3) for row in suite_rows(suite, 150, seed, "train")
    }
    asked = {row["prompt"] for suite in SUITES for row in suite_rows(suite, 150, 9, "test")}
    assert not trained_on & asked


def test_a_problem_keeps_its_side_when_it_is_asked_in_words():
    generator = random.Random(0)
    for name, family in FAMILIES.items():
        drawn = [family.draw(generator) for _ in range(4000)]
        trained_on = {family.words(numbers) for numbers in drawn if split_of(family.question(numbers)) == "train"}
        assert trained_on, name
        assert not trained_on & {row["prompt"].removesuffix("=?\n") for row in suite_rows("words", 400, 9, "test")}


def test_demonstrations_are_right_by_the_verifier_and_by_arithmetic():
    for suite in SUITES:
        rows = suite_rows(suite, 60, 4, "train")
        verdicts = judge([row["demonstration"] for row in rows], [row["solution"] for row in rows])
        assert set(verdicts) == {"right"}
        assert all(is_correct(row["demonstration"], row["solution"]) for row in rows)
        for row in rows:
            for line in row["demonstration"].splitlines()[:-1]:
                left, right = line.split("=")
                assert eval(left) == int(right), line
        if suite not in ("digits", "words"):
            assert all(eval(row["prompt"].split("=")[0]) == int(row["solution"]) for row in rows)
    digits = suite_rows("digits", 20, 4, "train")
    assert all(sum(map(int, re.findall(r"\d", row["prompt"]))) == int(row["solution"]) for row in digits)


def test_training_rows_are_even_over_families_and_fit_the_longest_answer():
    rows = training_rows(32, 1)
    counts = [sum(row["suite"] == name for row in rows) for name in IN_DISTRIBUTION]
    # 32 = 6 * 5 + 2
    assert counts == [6, 6, 5, 5, 5, 5]
    assert len({row["prompt"] for row in rows}) == 32
    longest = max(len(row["demonstration"]) for suite in SUITES for row in suite_rows(suite, 200, 0, "test"))
    # `\boxed{` is one token, and EOS another.
    assert longest - 6 + 1 <= MAX_COMPLETION_LENGTH


def test_hard_problems_are_never_pretrained_on_and_are_about_half():
    generator = random.Random(0)
    assert all(sample_row(generator, suite, "train", only_easy=True)["is_easy"] for suite in SUITES for _ in range(20))
    for suite in IN_DISTRIBUTION:
        easy = sum(row["is_easy"] for row in suite_rows(suite, 300, 1, "test"))
        assert 0.3 * 300 < easy < 0.7 * 300, suite


def test_a_textbook_works_out_the_hard_problems_only():
    full, textbook = training_rows(60, 3), training_rows(60, 3, textbook=True)
    for worked, printed in zip(full, textbook):
        lines = worked["demonstration"].splitlines()
        assert printed["demonstration"].splitlines() == (lines[-1:] if worked["is_easy"] else lines)


def test_a_base_is_built_alike_twice_and_loads_in_either_architecture(tmp_path):
    for architecture in ("qwen2", "llama"):
        base = Base(architecture, 16, 1, 2, 1, dict.fromkeys(SUITES, 0.5))
        for name in ("one", "two"):
            build_base(base, tmp_path / architecture / name)
        models = [AutoModelForCausalLM.from_pretrained(tmp_path / architecture / name) for name in ("one", "two")]
        one, two = (model.state_dict() for model in models)
        assert all(torch.equal(one[key], two[key]) for key in one)
        assert models[0].config.model_type == architecture
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / architecture / "one")
        text = "7 times 305=?\n7*5+0=35\n\\boxed{0}"
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert len(tokenizer("\\boxed{")["input_ids"]) == 1
