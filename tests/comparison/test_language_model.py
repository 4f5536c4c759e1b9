"""The comparison on a real language model: its problems, a small run, and the committed report."""

import json
import re
from pathlib import Path

import pytest

from hpt_trl.comparison.held_out_eval import is_correct
from hpt_trl.comparison.language_model import best_rates, main, main_runs, search_runs
from hpt_trl.comparison.language_model_runs import chat_rows, held_out_problems, load_tokenizer, phases_of
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.language_model_table import accuracies, report_text
from hpt_trl.comparison.word_problems import STORIES, word_problems
from hpt_trl.verifier.verdicts import judge
from tests.tiny import build_tiny_model

RESULTS = Path(__file__).parents[2] / "notebooks" / "results" / "smollm2_words"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_splits_share_no_question_and_the_same_arguments_give_the_same_problems():
    train = [row["question"] for seed in (0, 1) for row in word_problems(400, seed, "train")]
    test = [row["question"] for row in word_problems(200, 1, "test")]
    assert not set(train) & set(test)
    assert test == [row["question"] for row in word_problems(200, 1, "test")]
    assert len(set(test)) == 200


def test_easy_problems_have_one_digit_numbers_and_hard_ones_two_digit_numbers():
    for is_hard in (False, True):
        for row in word_problems(40, 0, "train", is_hard):
            assert (max(map(int, re.findall(r"\d+", row["question"]))) > 9) == is_hard
            assert row["kind"] in STORIES
    with pytest.raises(ValueError, match="at least 1"):
        word_problems(0, 0, "train")


def test_the_verifier_accepts_the_demonstrations():
    rows = word_problems(150, 3, "train")
    verdicts = judge([row["demonstration"] for row in rows], [row["solution"] for row in rows])
    assert set(verdicts) == {"right"}


def test_stories_by_hand():
    # Buying adds, giving away subtracts, boxes multiply.
    assert [STORIES[kind].answer(12, 5) for kind in ("gain", "loss", "price")] == [17, 7, 60]


def test_prompts_are_chats_without_pad_tokens(tiny):
    args = LanguageModelArguments(model_name_or_path=tiny)
    tokenizer = load_tokenizer(args)
    (row,) = chat_rows(tokenizer, word_problems(1, 0, "train"))
    assert row["prompt"] == f"<|system|>Box the answer.<eos>\n<|user|>{row['question']}<eos>\n<|assistant|>"
    assert tokenizer.pad_token_id not in tokenizer(row["prompt"])["input_ids"]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="'magic'"):
        LanguageModelArguments(methods=["magic"])
    with pytest.raises(ValueError, match="steps must be at least 1"):
        LanguageModelArguments(steps=0)
    with pytest.raises(ValueError, match="must fill a step"):
        LanguageModelArguments(training_problems=3)


def test_the_complete_command_does_not_repeat_finished_runs(tiny, tmp_path, capfd):
    flags = (
        f"--model_name_or_path {tiny} --output_dir {tmp_path} --seeds 1 --steps 2 --prompts_per_step 2 "
        "--num_generations 2 --training_problems 8 --longest_answer 6 --practice_steps 1 --practice_prompts 2 "
        "--test_problems 4 --test_samples 2 --matmul_bf16 false"
    ).split()
    main(flags)
    assert capfd.readouterr().out.count("done") == 6
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["method"] for run in results["runs"]] == ["base", "sft", "grpo", "sft_grpo", "hpt"]
    assert str(tmp_path) not in json.dumps(results)
    passes = {run["method"]: run["backwarded"] for run in results["runs"]}
    assert passes["base"] == 0 < passes["sft"] < passes["grpo"]
    # Only HPT has a gate: two prompts in each of two steps.
    assert [len(run["solve_rates"]) for run in results["runs"]] == [0, 0, 0, 0, 4]
    assert (tmp_path / "README.md").read_text() == report_text(results)
    main(flags)
    assert "done" not in capfd.readouterr().out
    with pytest.raises(SystemExit):
        main([*flags, "--learning_rate", "1e-3"])
    assert "other settings (learning_rate)" in capfd.readouterr().err


def test_shares_by_hand():
    # Two seeds, two samples: problem 0 has (1 + 2) / 4 correct, problem 1 (0 + 1) / 4.
    runs = [{"method": "hpt", "marks": {"sampled": {"right": right}}} for right in ([1, 0], [2, 1])]
    results = {"settings": {"test_samples": 2}, "kinds": ["gain", "loss"], "runs": runs}
    assert sampled_shares(results, "hpt").tolist() == [0.75, 0.25]
    assert sampled_shares(results, "hpt", "loss").tolist() == [0.25]
    assert sampled_shares(results, "hpt", "gain").tolist() == [0.75]


def test_the_committed_report_is_made_from_the_committed_results():
    results = json.loads((RESULTS / "results.json").read_text())
    # The text after it, which interprets the numbers, is written by hand.
    assert (RESULTS / "README.md").read_text().startswith(report_text(results))
    assert len(results["kinds"]) == results["settings"]["test_problems"]
    for run in results["runs"]:
        assert len(run["marks"]["sampled"]["right"]) == len(results["kinds"])


def test_the_committed_counts_match_the_committed_texts():
    results = json.loads((RESULTS / "results.json").read_text())
    problems = word_problems(results["settings"]["test_problems"], 1, "test")
    assert [problem["kind"] for problem in problems] == results["kinds"]
    for run in results["runs"]:
        greedy = run["marks"]["greedy"]
        correct = [is_correct(text, problem["solution"]) for text, problem in zip(greedy["texts"], problems)]
        assert correct == [count == 1 for count in greedy["right"]]
