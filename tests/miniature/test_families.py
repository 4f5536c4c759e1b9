import random
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl.comparison.held_out_eval import MAX_COMPLETION_LENGTH, is_correct
from hpt_trl.miniature.bases import Base, build_base
from hpt_trl.miniature.families import FAMILIES, IN_DISTRIBUTION, SUITES, sample_row, suite_rows, training_rows
from hpt_trl.miniature.tasks import split_of
from hpt_trl.verifier.verdicts import judge


def test_train_and_test_questions_are_disjoint():
    train = {row["prompt"] for suite in SUITES for seed in range(3) for row in suite_rows(suite, 150, seed, "train")}
    test = {row["prompt"] for suite in SUITES for row in suite_rows(suite, 150, 9, "test")}
    assert not train & test


def test_a_problem_in_words_is_in_the_same_split():
    generator = random.Random(0)
    for name, family in FAMILIES.items():
        samples = [family.draw(generator) for _ in range(4000)]
        train = {family.words(numbers) for numbers in samples if split_of(family.question(numbers)) == "train"}
        assert train, name
        assert not train & {row["prompt"].removesuffix("=?\n") for row in suite_rows("words", 400, 9, "test")}


def test_demonstrations_are_correct_by_the_verifier_and_by_arithmetic():
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


def test_training_rows_are_balanced_over_families_and_fit_the_token_limit():
    rows = training_rows(32, 1)
    counts = [sum(row["suite"] == name for row in rows) for name in IN_DISTRIBUTION]
    # 32 = 6 * 5 + 2
    assert counts == [6, 6, 5, 5, 5, 5]
    assert len({row["prompt"] for row in rows}) == 32
    longest = max(len(row["demonstration"]) for suite in SUITES for row in suite_rows(suite, 200, 0, "test"))
    # `\boxed{` is one token, and EOS another.
    assert longest - 6 + 1 <= MAX_COMPLETION_LENGTH


def test_hard_problems_are_not_in_pretraining_and_are_about_half():
    generator = random.Random(0)
    assert all(sample_row(generator, suite, "train", only_easy=True)["is_easy"] for suite in SUITES for _ in range(20))
    for suite in IN_DISTRIBUTION:
        easy = sum(row["is_easy"] for row in suite_rows(suite, 300, 1, "test"))
        assert 0.3 * 300 < easy < 0.7 * 300, suite


def test_textbook_demonstrations_have_steps_for_hard_problems_only():
    full, textbook = training_rows(60, 3), training_rows(60, 3, textbook=True)
    for full_row, textbook_row in zip(full, textbook):
        lines = full_row["demonstration"].splitlines()
        assert textbook_row["demonstration"].splitlines() == (lines[-1:] if full_row["is_easy"] else lines)


def test_a_rebuilt_base_is_identical_and_loads_for_both_architectures(tmp_path):
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
