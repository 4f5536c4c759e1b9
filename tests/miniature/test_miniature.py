from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl.evaluation.arguments import EvaluateArguments
from hpt_trl.evaluation.evaluate import evaluate
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.build import build_model, build_tokenizer, pretrain, save
from hpt_trl.miniature.tasks import problems
from hpt_trl.verifier.verdicts import accuracy_reward


def test_train_and_test_are_disjoint_for_all_seeds():
    train = {row["prompt"] for seed in range(3) for row in problems(500, seed, "train")}
    test = {row["prompt"] for seed in range(3) for row in problems(200, seed, "test")}
    assert not train & test


def test_the_verifier_accepts_demonstrations_and_rejects_wrong_answers():
    rows = problems(300, 5, "train")
    solutions = [row["solution"] for row in rows]
    assert accuracy_reward([row["demonstration"] for row in rows], solutions) == [1.0] * 300
    wrong = [f"\\boxed{{{int(solution.strip('$')) + 1}}}" for solution in solutions]
    assert accuracy_reward(wrong, solutions) == [0.0] * 300


def test_the_model_is_small_and_round_trips_text():
    assert sum(path.stat().st_size for path in Path(MODEL_PATH).iterdir()) < 5e6
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    text = "1+2-3=?\n1+2=3\n\\boxed{0}"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_model_solves_a_few_problems():
    args = EvaluateArguments("miniature", "miniature", limit=200, temperature=1.0, top_p=1.0, max_new_tokens=48)
    (score,) = evaluate(args).scores.values()
    assert 0.05 < score.average.value < 0.4


def test_a_rebuild_gives_the_same_weights(tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(0)
        tokenizer = build_tokenizer()
        model = build_model(tokenizer)
        pretrain(model, tokenizer, steps=3, seed=0)
        save(model, tokenizer, tmp_path / name)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
