"""The comparison on a real language model: its problems, a small run, and the committed report."""

import json
import re
from pathlib import Path

import pytest

from hpt_trl.comparison.held_out_eval import is_correct
from hpt_trl.comparison.language_model import best_rates, main, main_runs, search_runs
from hpt_trl.comparison.language_model_runs import Run, chat_rows, held_out_problems, load_tokenizer, phases_of
from hpt_trl.comparison.language_model_settings import LanguageModelArguments
from hpt_trl.comparison.language_model_table import accuracies, difference_table, report_text
from hpt_trl.comparison.methods import HPT_METHODS, UNLIMITED_STEPS
from hpt_trl.comparison.word_problems import STORIES, word_problems
from hpt_trl.verifier.verdicts import judge
from tests.tiny import build_tiny_model

README = Path(__file__).parents[2] / "README.md"
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
    with pytest.raises(ValueError, match=r"from 1 to training_problems \(256\), got 300"):
        LanguageModelArguments(demonstrations=300)
    with pytest.raises(ValueError, match=r"seeds must not contain any of search_seeds, got \[1, 2\] and \[2\]"):
        LanguageModelArguments(seeds=[1, 2], search_seeds=[2])
    with pytest.raises(ValueError, match="sft_grpo: begins with SFT"):
        LanguageModelArguments(methods=["grpo", "sft_grpo"])
    with pytest.raises(ValueError, match="num_generations must be at least 2"):
        LanguageModelArguments(num_generations=1)
    with pytest.raises(ValueError, match="learning_rates must contain at least one value"):
        LanguageModelArguments(learning_rates=[])


def test_problems_of_the_search_are_not_reported():
    args = LanguageModelArguments(test_problems=30, search_problems=20)
    reported, searched = (
        [problem["question"] for problem in held_out_problems(args, stage)] for stage in ("main", "search")
    )
    assert (len(reported), len(searched)) == (30, 20)
    assert not set(reported) & set(searched)


def test_warmup_and_weight_follow_the_settings():
    args = LanguageModelArguments(steps=10, num_generations=4)
    (hpt,) = phases_of("hpt", args)
    assert dict(hpt.options) == {"sft_weight": 1 / 4}
    (warmup,) = phases_of("warmup_hpt", args)
    assert dict(warmup.options) == {"sft_weight": 1 / 4, "sft_warmup_steps": 5}
    (flat,) = phases_of("flat_hpt", args)
    assert flat.options["sft_warmup_steps"] == UNLIMITED_STEPS
    assert [phase.trainer for phase in phases_of("sft_grpo", args)] == ["sft", "grpo"]


def test_the_best_learning_rate_is_that_of_the_best_mean():
    def result(method, rate, right):
        run = {"method": method, "learning_rate": rate}
        return {"run": run, "marks": {"steps": {"right": right}}, "settings": {"test_samples": 2}}

    results = [
        result("sft", 1e-5, [2, 0]), result("sft", 1e-5, [0, 0]), result("sft", 2e-5, [1, 1]),
        result("hpt", 1e-5, [2, 1]), result("hpt", 2e-5, [0, 1]),
    ]  # fmt: skip
    # SFT: 1/2 and 0, mean 1/4, against 1/2.
    rates = best_rates(results)
    assert rates == {"sft": 2e-5, "hpt": 1e-5}
    args = LanguageModelArguments(methods=["base", "sft", "hpt", "warmup_hpt"], seeds=[7], learning_rates=[3e-5])
    (search,) = search_runs(args, ["warmup_hpt"], rates)
    assert search == Run("search", "warmup_hpt", 101, 3e-5, 2e-5)
    assert main_runs(args, rates | {"warmup_hpt": 3e-5}) == [
        Run("main", "base", 7, 0.0), Run("main", "sft", 7, 2e-5), Run("main", "hpt", 7, 1e-5),
        Run("main", "warmup_hpt", 7, 3e-5, 2e-5),
    ]  # fmt: skip


def test_the_complete_command_does_not_repeat_finished_runs(tiny, tmp_path, capfd):
    flags = (
        f"--model_name_or_path {tiny} --output_dir {tmp_path} --seeds 1 --learning_rates 1e-5 --steps 2 --compute 3000 "
        "--prompts_per_step 2 --num_generations 2 --training_problems 8 --demonstrations 4 --longest_answer 6 "
        "--practice_steps 1 --practice_prompts 2 --test_problems 4 --search_problems 2 --test_samples 2 "
        "--matmul_bf16 false"
    ).split()
    main(flags)
    # Practice, a search run of every method but the base, and the reported runs.
    assert capfd.readouterr().out.count("done") == 1 + 6 + 7
    results = json.loads((tmp_path / "results.json").read_text())
    runs = {run["run"]["method"]: run for run in results["runs"]}
    assert list(runs) == ["base", "sft", "grpo", "sft_grpo", "hpt", "warmup_hpt", "flat_hpt"]
    assert str(tmp_path) not in json.dumps(results)
    spent = {method: run["spent"] for method, run in runs.items() if method != "base"}
    assert {method: costs["steps"]["step"] for method, costs in spent.items()} == dict.fromkeys(spent, 2)
    assert all(costs["compute"]["compute"] >= 3000 for costs in spent.values())
    assert spent["sft"]["steps"]["compute"] < spent["hpt"]["steps"]["compute"] < spent["grpo"]["steps"]["compute"]
    # SFT generates nothing.
    assert spent["sft"]["compute"]["forwarded"] == spent["sft"]["compute"]["backwarded"]
    assert {method for method, run in runs.items() if run["demonstration_share"]} == set(HPT_METHODS)
    assert (tmp_path / "README.md").read_text() == report_text(results)
    main(flags)
    assert "done" not in capfd.readouterr().out
    with pytest.raises(SystemExit):
        main([*flags, "--training_problems", "9"])
    assert "other settings (training_problems)" in capfd.readouterr().err


def test_accuracies_by_hand():
    # Two seeds, two samples of each of two problems.
    runs = [
        {"run": {"method": "hpt"}, "marks": {"steps": {"right": right}}} for right in ([1, 0], [2, 1])
    ]  # fmt: skip
    results = {"settings": {"test_samples": 2}, "kinds": ["gain", "loss"], "runs": runs}
    assert accuracies(results, "hpt", "steps") == [0.25, 0.75]
    assert accuracies(results, "hpt", "steps", "loss") == [0.0, 0.5]
    assert accuracies(results, "hpt", "steps", "gain") == [0.5, 1.0]


def test_differences_by_hand():
    rights = {"sft": ([1, 0], [0, 0], [1, 1]), "hpt": ([1, 1], [1, 1], [2, 1])}
    runs = [
        {"run": {"method": method, "seed": seed}, "marks": {"steps": {"right": right}}}
        for method in rights
        for seed, right in enumerate(rights[method])
    ]
    results = {"settings": {"test_samples": 2}, "kinds": ["gain", "loss"], "runs": runs}
    # Differences of 1/4, 1/2 and 1/4: mean 1/3, standard error 1/12, t = 4 with two degrees of freedom.
    assert (
        difference_table(results, "steps", "hpt").splitlines()[-1] == "| SFT | +33.3 | 0.057 | +25.0 / +50.0 / +25.0 |"
    )


def test_the_committed_report_is_made_from_the_committed_results():
    results = json.loads((RESULTS / "results.json").read_text())
    # The text after it, which interprets the numbers, is written by hand.
    assert (RESULTS / "README.md").read_text().startswith(report_text(results))
    assert len(results["kinds"]) == results["settings"]["test_problems"]
    assert {len(run["marks"][budget]["right"]) for run in results["runs"] for budget in run["marks"]} == {
        len(results["kinds"])
    }


def test_the_committed_counts_match_the_committed_texts():
    results = json.loads((RESULTS / "results.json").read_text())
    samples = results["settings"]["test_samples"]
    args = LanguageModelArguments(
        test_problems=results["settings"]["test_problems"], search_problems=results["settings"]["search_problems"]
    )
    problems = held_out_problems(args, "main")
    assert [problem["kind"] for problem in problems] == results["kinds"]
    for run in results["runs"]:
        for marks in run["marks"].values():
            is_first_correct = [
                is_correct(text, problem["solution"]) for text, problem in zip(marks["texts"], problems)
            ]
            assert all(first <= count <= samples - 1 + first for first, count in zip(is_first_correct, marks["right"]))


def test_what_the_readme_says_is_what_the_committed_results_show():
    results = json.loads((RESULTS / "results.json").read_text())
    own, readme = (" ".join(path.read_text().split()) for path in (RESULTS / "README.md", README))

    def percent(method, budget):
        values = accuracies(results, method, budget)
        return f"{100 * sum(values) / len(values):.1f}%"

    steps = [percent(method, "steps") for method in ("sft", "grpo", "sft_grpo", "hpt", "base")]
    assert "SFT solves {}, GRPO {}, SFT then GRPO {}, HPT {} and the base {},".format(*steps) in readme
    compute = [percent(method, "compute") for method in ("sft", "flat_hpt", "hpt", "sft_grpo", "grpo")]
    assert "SFT is ahead with {}, before SFT until flat, then HPT with {}, HPT {},".format(*compute[:3]) in readme
    assert "SFT then GRPO {} and GRPO {}: in runs".format(*compute[3:]) in readme
    sft, flat, hpt, _, grpo = compute
    assert f"solve {sft}, SFT until flat, then HPT {flat}, HPT {hpt}, GRPO {grpo}." in own
    rows = {
        (budget, reference, row.split(" | ")[0].strip("| ")): row.split(" | ")[1:3]
        for budget, reference in (("steps", "hpt"), ("compute", "hpt"), ("compute", "flat_hpt"))
        for row in difference_table(results, budget, reference).splitlines()[2:]
    }
    points, p = rows["compute", "hpt", "SFT"]
    assert f"HPT's distance to SFT is {points.strip('-')} points (p {p} after" in own
    assert f"that of SFT until flat, then HPT {rows['compute', 'flat_hpt', 'SFT'][0].strip('-')}." in own
    points, p = rows["steps", "hpt", "SFT warm-up, then HPT"]
    assert f"The method is {points.strip('+')} points behind plain HPT at equal steps (p {p})" in own
    for method in ("SFT", "GRPO", "SFT then GRPO"):
        assert float(rows["steps", "hpt", method][1]) > 0.05
