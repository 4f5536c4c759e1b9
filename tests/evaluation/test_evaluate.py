"""The evaluation as a user runs it: it resumes exactly after a kill, and reports what it cannot do."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl.commands.evaluate import main
from hpt_trl.common.command_line import parse
from hpt_trl.data.sources import MINIATURE
from hpt_trl.evaluation import sampling
from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.engines import Checkpoint, Completion, Sampling, TransformersEngine, VLLMEngine, load_tokenizer
from hpt_trl.evaluation.evaluate import chosen_pass_at, evaluate, run
from hpt_trl.miniature import MODEL_PATH

# 24 problems x 4 samples in 16 batches.
KILLED = ["--model", "miniature", "--data", "miniature", "--limit", "24", "--samples", "4", "--batch_size", "6"]

ANSWERS = "{{ messages[-1]['content'] }}"
THINKS = ANSWERS + "{% if add_generation_prompt %}<think>\n{% endif %}"


class UnclosedEngine:
    """An engine whose completions never end the thought that the prompt may have opened."""

    def complete(self, prompts, options, seed):
        return [Completion(r"Perhaps \boxed{5}, but wait", 9, cut=False) for _ in prompts]


@pytest.mark.parametrize(("template", "verdict"), [(THINKS, "unparseable answer"), (ANSWERS, "right")])
def test_a_thought_that_the_prompt_opens_has_no_answer(tmp_path, template, verdict):
    (tmp_path / "data.jsonl").write_text('{"problem": "2+3?", "answer": "5"}\n')
    args = EvaluateArguments(model="miniature", data=str(tmp_path / "data.jsonl"), samples=1)
    tokenizer = load_tokenizer(Checkpoint(str(MODEL_PATH)))
    tokenizer.chat_template = template
    (task,) = sampling.load_tasks(args, tokenizer)[0].values()
    settings = sampling.run_settings(args, Checkpoint(str(MODEL_PATH)))
    answers = sampling.sample_task(task, UnclosedEngine, Sampling(1.0, 1.0, 9), settings, args)
    assert [answer.verdict for answer in answers] == [verdict]


def answers_of(folder: Path) -> bytes:
    return (folder / "answers" / "data_miniature.jsonl").read_bytes()


# The command, which waits to be killed before the first batch that finds so many bytes of answers.
WAITS = """
import sys, time
from pathlib import Path
from hpt_trl.commands.evaluate import main
from hpt_trl.evaluation.engines import TransformersEngine

path, size, complete = Path(sys.argv[1]), int(sys.argv[2]), TransformersEngine.complete

def complete_or_wait(self, *args):
    while path.exists() and path.stat().st_size >= size:
        time.sleep(1)
    return complete(self, *args)

TransformersEngine.complete = complete_or_wait
main(sys.argv[3:])
"""


def kill_at(flags: list[str], folder: Path, size: int) -> None:
    """Start the command in a separate process, and SIGKILL it once its answers have this many bytes."""
    path = folder / "answers" / "data_miniature.jsonl"
    command = [sys.executable, "-c", WAITS, str(path), str(size), *flags, "--output", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not (path.exists() and path.stat().st_size >= size):
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -9


def test_an_evaluation_killed_three_times_gives_the_same_table(tmp_path, capsys):
    main([*KILLED, "--output", str(tmp_path / "uninterrupted")])
    table = capsys.readouterr().out.partition("Results written to")[0]
    expected = answers_of(tmp_path / "uninterrupted")
    folder = tmp_path / "killed"
    for size in sorted(random.Random(5).sample(range(1, len(expected) * 9 // 10), 3)):
        kill_at(KILLED, folder, size)
        assert not (folder / "results.json").exists()
        assert size <= len(answers_of(folder)) < len(expected)
    # A kill in the middle of a write leaves an incomplete line.
    with (folder / "answers" / "data_miniature.jsonl").open("ab") as file:
        file.write(b'{"problem": 3, "sam')
    main([*KILLED, "--output", str(folder)])
    assert capsys.readouterr().out.partition("Results written to")[0] == table
    assert answers_of(folder) == expected
    assert (folder / "results.json").read_bytes() == (tmp_path / "uninterrupted" / "results.json").read_bytes()


SMALL = {"limit": 6, "samples": 2, "max_new_tokens": 12, "batch_size": 4}


def small(output=None, **options) -> EvaluateArguments:
    return EvaluateArguments(MINIATURE, MINIATURE, output=output and str(output), **(SMALL | options))


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    run(small(tmp_path))
    with pytest.raises(ValueError, match=r"temperature was 0.6 and is 1.0"):
        run(small(tmp_path, temperature=1.0))
    with pytest.raises(ValueError, match=r"limit was 6 and is 7; .*prompts_and_answers was"):
        run(small(tmp_path, limit=7))


def test_a_verifier_of_the_users_judges(tmp_path, monkeypatch):
    (tmp_path / "my_evaluation_verifier.py").write_text(
        "def is_even(prompts, completions, solution, **kwargs):\n"
        "    assert all(isinstance(text, str) for text in [*prompts, *completions])\n"
        "    return [float(int(gold.strip('$')) % 2 == 0) for gold in solution]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    evaluation = evaluate(small(verifier="my_evaluation_verifier.is_even"))
    (task,), (answers,) = evaluation.tasks.values(), evaluation.answers.values()
    for answer in answers:
        is_even = int(task.problems[answer.problem]["answer"].strip("$")) % 2 == 0
        assert answer.verdict == ("right" if is_even else "wrong")
    with pytest.raises(ValueError, match="verifier must be one of"):
        small(verifier="unknown")


def test_a_finished_evaluation_is_scored_again_without_the_model(tmp_path, monkeypatch):
    first = run(small(tmp_path))
    monkeypatch.delattr(TransformersEngine, "complete")
    again = run(small(tmp_path, pass_at=[2]))
    assert again.scores == first.scores
    assert again.answers == first.answers


def test_two_evaluations_at_the_same_time_are_refused(tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="Another evaluation is writing to"):
        run(small(tmp_path))


def test_results_contain_settings_versions_completions_and_verdicts(tmp_path, capsys):
    flags = ["--model", "miniature", "--data", "miniature", "--limit", "4", "--samples", "2", "--max_new_tokens", "8"]
    main([*flags, "--output", str(tmp_path / "folder")])
    assert "miniature" in capsys.readouterr().out
    assert (tmp_path / "folder" / "scores.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "folder" / "results.json").read_text())
    main([*flags, "--output", str(tmp_path / "one.json")])
    assert json.loads((tmp_path / "one.json").read_text()) == written
    assert written["settings"]["samples"] == 2
    assert written["versions"]["torch"] == torch.__version__
    (suite,) = written["suites"].values()
    assert [len(problem["completions"]) for problem in suite["problems"]] == [2] * 4
    completions = [completion for problem in suite["problems"] for completion in problem["completions"]]
    verdicts = [completion["verdict"] for completion in completions]
    assert verdicts.count("right") / 8 == suite["average"]["value"]
    assert suite["verdicts"] == {name: verdicts.count(name) for name in suite["verdicts"]}
    assert suite["mean_tokens"] == sum(completion["tokens"] for completion in completions) / 8


def test_sorting_by_length_keeps_each_completion_with_its_problem():
    """Greedy decoding does not depend on the order, the batch size, or the padding."""
    settings = {"limit": 12, "samples": 1, "temperature": 0.0}
    (single,) = evaluate(small(batch_size=1, **settings)).answers.values()
    (batched,) = evaluate(small(batch_size=5, **settings)).answers.values()
    assert sorted(batched, key=lambda answer: answer.problem) == sorted(single, key=lambda answer: answer.problem)
    assert len({answer.text for answer in batched}) > 1


def test_batches_contain_every_sample_once_with_the_longest_prompts_first():
    task = sampling.Task("s", None, [], [[1], [1, 2, 3], [1, 2]], samples=2)
    assert task.batches(4) == [[(1, 0), (1, 1), (2, 0), (2, 1)], [(0, 0), (0, 1)]]


def test_sampling_does_not_change_the_global_random_state():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    evaluate(small())
    assert torch.equal(torch.rand(3), expected)


def test_seeds_differ_between_batches_suites_and_seeds():
    seeds = {sampling.batch_seed(seed, name, batch) for seed in (0, 1) for name in ("a", "b") for batch in range(50)}
    assert len(seeds) == 200
    assert max(seeds) < 2**32


@pytest.fixture(scope="module")
def engine():
    checkpoint = Checkpoint(MODEL_PATH)
    return TransformersEngine(checkpoint, load_tokenizer(checkpoint), "float32")


def test_tokens_are_counted_up_to_the_end_of_sequence(engine):
    prompts = [engine.tokenizer(text)["input_ids"] for text in ("1+1=?\n", "12+3-4+5=?\n")]
    long = engine.complete(prompts, Sampling(0.0, 1.0, 64), seed=0)
    for completion in long:
        ids = engine.tokenizer(completion.text)["input_ids"]
        assert (completion.tokens, completion.cut) == (len(ids) + 1, False)
    short = engine.complete(prompts, Sampling(0.0, 1.0, 3), seed=0)
    assert [(completion.tokens, completion.cut) for completion in short] == [(3, True)] * 2
    assert all(before.text.startswith(after.text) for before, after in zip(long, short))


def test_a_seed_determines_a_batch(engine):
    prompts = [engine.tokenizer("12+3-4+5=?\n")["input_ids"]] * 16
    first, again, other = (engine.complete(prompts, Sampling(1.5, 1.0, 24), seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({completion.text for completion in first}) > 1


def adapter(folder: Path) -> str:
    """A LoRA adapter that changes the outputs of the bundled model."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(MODEL_PATH)
    model = get_peft_model(
        model, LoraConfig(r=8, lora_alpha=64, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    )
    model.save_pretrained(folder)
    return str(folder)


def test_an_adapter_is_loaded_with_its_base_model(tmp_path):
    path = adapter(tmp_path / "adapter")
    settings = SMALL | {"samples": 1, "temperature": 0.0}
    result = evaluate(EvaluateArguments(path, MINIATURE, **settings))
    (answers,), (plain,) = result.answers.values(), evaluate(small(temperature=0.0, samples=1)).answers.values()
    assert [answer.text for answer in answers] != [answer.text for answer in plain]
    assert set(result.settings["weights"]) == {"base", "adapter"}

    config = Path(path) / "adapter_config.json"
    config.write_text(config.read_text().replace(MODEL_PATH, "./moved/base"))
    with pytest.raises(FileNotFoundError, match=r"base model of the adapter .* was not found. Pass it as base_model"):
        evaluate(EvaluateArguments(path, MINIATURE, **settings))
    moved = evaluate(EvaluateArguments(path, MINIATURE, base_model=MINIATURE, **settings))
    assert list(moved.answers.values()) == [answers]
    with pytest.raises(ValueError, match="is a full model, not an adapter"):
        evaluate(small(base_model=MINIATURE))


def test_suites_from_a_folder(tmp_path, tiny_model, capsys):
    """A chat model on several suites: templated prompts, samples per suite, averages, an unparseable solution."""
    rows = {"math500": [("1+1?", "2"), ("2+2?", "\\text{}")], "minerva": [("3+3?", "6")], "gsm8k": [("4+4?", "#### 8")]}
    for name, pairs in rows.items():
        Dataset.from_list([{"problem": p, "answer": a} for p, a in pairs]).to_json(tmp_path / f"{name}.jsonl")
    flags = ["--model", tiny_model, "--suites", "all", "--benchmarks", str(tmp_path), "--max_new_tokens", "4"]
    main([*flags, "--samples", "2", "--instruction", "Box it.", "--output", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "Skipped because" in output
    assert "cannot parse the solution of 1 problems" in output
    assert "average in distribution" in output
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(written["suites"]) == ["math500", "minerva", "gsm8k"]
    assert list(written["averages"]) == ["in distribution"]
    assert written["suites"]["math500"]["unreadable_golds"] == 1
    assert written["suites"]["gsm8k"]["problems"][0]["answer"] == "8"


def test_prompts_are_written_by_the_chat_template(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    args = EvaluateArguments(tiny_model, suites=["aime24"], system_prompt="Be brief.", instruction="Box it.")
    ids = sampling.prompt_ids({"problem": "1+1?"}, sampling.SUITES["aime24"], args, tokenizer)
    text = "<|system|>Be brief.<eos>\n<|user|>1+1?\nBox it.<eos>\n<|assistant|>"
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match="rejects this prompt: System role not supported"):
        sampling.prompt_ids({"problem": "1+1?"}, sampling.SUITES["aime24"], args, tokenizer)


def test_the_maximum_completion_length_is_the_papers_or_what_fits_into_the_context():
    task = sampling.Task("s", sampling.SUITES["aime24"], [], [[1] * 10, [1] * 100], samples=1)
    lengths = [sampling.completion_length(small(max_new_tokens=None), task, at) for at in (None, 300, 32768)]
    assert lengths == [8192, 300 - 100, 8192]
    assert sampling.completion_length(small(max_new_tokens=9000), task, None) == 9000
    with pytest.raises(
        ValueError, match=r"longest prompt of AIME24 has 100, which leaves no room for any .* at most 0"
    ):
        sampling.completion_length(small(max_new_tokens=None), task, 64)


def test_values_of_k_for_pass_at_k():
    assert chosen_pass_at(None, [1, 32]) == [2, 4, 8, 16, 32]
    assert chosen_pass_at(None, [1]) == []
    assert chosen_pass_at([8, 1, 2], [1, 8]) == [2, 8]
    with pytest.raises(ValueError, match=r"pass@16 needs at least 16 samples per problem, got 8"):
        chosen_pass_at([16], [1, 8])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "Nothing to evaluate on"),
        ({"suites": ["aime42"]}, "suites must be among aime24"),
        ({"benchmarks": "x"}, "no suites were given"),
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"pass_at": [0]}, "pass_at must be at least 1"),
        ({"pass_at": [64]}, "pass@64 needs at least 64 samples"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"engine": "sglang"}, "engine must be 'transformers' or 'vllm', got 'sglang'"),
        ({"max_model_len": 64}, "need --engine vllm"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"max_new_tokens": 9999}, r"context is 256 tokens and the longest prompt of miniature has \d+.* for 9999"),
        ({"instruction": "Box it."}, "contains complete prompts"),
        ({"output": "nowhere/x.json"}, "output is in a folder that does not exist"),
        ({"split": "validation"}, "splits 'train' and 'test'"),
    ],
)
def test_invalid_input_is_reported(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateArguments(**({"model": MINIATURE, "data": MINIATURE} | changes)))


def test_the_command_line_takes_lists_and_reports_errors_in_one_paragraph(capsys):
    flags = ["--model", "m", "--suites", "aime24", "math500", "--benchmarks", "b", "--pass_at", "1", "2", "4"]
    (args,) = parse((EvaluateArguments,), flags, "test")
    assert (args.suites, args.pass_at, args.samples) == (["aime24", "math500"], [1, 2, 4], None)
    with pytest.raises(SystemExit) as stop:
        main(["--model", "miniature"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("hpt-trl evaluate: error: Nothing to evaluate on")


def test_missing_vllm_is_reported():
    if is_vllm_installed():
        pytest.skip("vLLM is installed")
    with pytest.raises(ImportError, match=r"pip install 'hpt-trl\[vllm\]'"):
        evaluate(small(engine="vllm"))


def is_vllm_installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("vllm") is not None


@pytest.mark.skipif(not is_vllm_installed(), reason="vLLM is not installed")
def test_vllm_and_transformers_give_the_same_answers(engine, tmp_path):
    """Greedy decoding in float32 gives the same tokens, for a model and for an adapter on it."""
    checkpoint = Checkpoint(MODEL_PATH, adapter(tmp_path / "adapter"))
    prompts = [engine.tokenizer(text)["input_ids"] for text in ("1+1=?\n", "12+3-4+5=?\n", "7-2+9=?\n")]
    greedy = Sampling(0.0, 1.0, 32)
    vllm = VLLMEngine(checkpoint, engine.tokenizer, "float32", max_model_len=128)
    expected = TransformersEngine(checkpoint, engine.tokenizer, "float32").complete(prompts, greedy, 0)
    assert vllm.complete(prompts, greedy, 0) == expected
    vllm.lora = None
    assert vllm.complete(prompts, greedy, 0) == engine.complete(prompts, greedy, 0) != expected
    sampled = [vllm.complete(prompts, Sampling(1.5, 1.0, 32), seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
