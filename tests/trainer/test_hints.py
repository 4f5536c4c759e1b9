"""Hinted rollouts: unsolved prompts continue a prefix of their demonstration, which is judged but not trained on."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl import HPTConfig
from hpt_trl.trainer.batches import RowIndex
from hpt_trl.trainer.hints import Hint, HintFractions, own_share
from tests.durability.kill_and_resume import differences, log_without_times
from tests.tiny import ROWS, make_trainer, parameters, relative_error, step_gradient, trained_parameters

# Demonstrations of 5 to 8 tokens, EOS included: their halves have 2 to 4.
HINTS = {"hint_fraction": 0.5, "sft_weight": 0.0, "max_completion_length": 12}


class HintedParity:
    """Reward of rollouts that begin like the demonstration: 1 where the sum of their tokens is even. Others get 0.

    It remembers the token ids that it judged, call by call.
    """

    __name__ = "accuracy_reward"

    def __init__(self):
        self.calls = []

    def __call__(self, completions, completion_ids, demonstration, **columns):
        self.calls.append(completion_ids)
        texts = [text if isinstance(text, str) else text[0]["content"] for text in completions]
        pairs = zip(texts, completion_ids, demonstration)
        return [float(text[:2] == answer[:2] and sum(ids) % 2 == 0) for text, ids, answer in pairs]


def hand_made_gradient(model_path, rollouts, loss_type, advantage=None, first=None):
    """Policy gradient on the continuations of 4 prompts x 4 rollouts, by a loop.

    Another `advantage` than that of the rewards, and another `first` token than the continuation's, can be given.
    """
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_path), AutoTokenizer.from_pretrained(model_path)
    losses, tokens = [], 0
    for row, ids in enumerate(rollouts):
        example = ROWS[row // 4]
        prompt = tokenizer(example["prompt"])["input_ids"]
        answer = [*tokenizer(example["demonstration"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        length = round(0.5 * len(answer))
        assert ids[:length] == answer[:length]
        rewards = torch.tensor([float(sum(other) % 2 == 0) for other in rollouts[row // 4 * 4 : row // 4 * 4 + 4]])
        estimated = rewards[row % 4] - rewards.mean()
        if loss_type == "dapo":  # with rewards over the spread of their group
            estimated = estimated / (rewards.std() + 1e-4)
        logps = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)
        logps = logps.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1)
        scored = logps[length if first is None else first :]
        losses.append(-(estimated if advantage is None else advantage) * scored.sum())
        tokens += len(scored)
    # Dr. GRPO divides by rows and the maximum length, DAPO by tokens.
    (sum(losses) / (tokens if loss_type == "dapo" else 16 * 12)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate": "off"},
        {"loss_type": "dapo", "scale_rewards": "group"},
        {"num_iterations": 2},
        {"num_iterations": 2, "skip_zero_signal_rollouts": False},
        {"gate": "off", "num_iterations": 2},
        {"max_tokens_per_forward": 30},
    ],
    ids=str,
)
def test_the_gradient_is_that_of_the_continuations(tiny_model, tmp_path, options):
    reward = HintedParity()
    found = step_gradient(tiny_model, tmp_path, reward=reward, **HINTS, **options)
    _, hinted = reward.calls
    loss_type = options.get("loss_type", "dr_grpo")
    assert relative_error(found, hand_made_gradient(tiny_model, hinted, loss_type)) < 1e-5


def test_the_gate_trains_on_the_demonstration_as_before(tiny_model, tmp_path):
    both = HintedParity()
    found = step_gradient(tiny_model, tmp_path, reward=both, **HINTS | {"sft_weight": 0.5})
    demonstrations = step_gradient(tiny_model, tmp_path, reward=lambda prompts, **_: [0.0] * len(prompts),
                                   max_completion_length=12, sft_weight=0.5)  # fmt: skip
    assert relative_error(found, demonstrations + hand_made_gradient(tiny_model, both.calls[1], "dr_grpo")) < 1e-5


def batch_of(trainer):
    """One generation of the first four prompts."""
    trainer.model.train()
    return trainer._generate_and_score_completions([row for row in ROWS.select(range(4)) for _ in range(4)])


def test_a_prefix_has_no_gradient(tiny_model, tmp_path):
    # Advantages of a group add up to zero, so that a prefix, which its rows share, would cancel: give all rows 1.
    reward = HintedParity()
    trainer = make_trainer(tiny_model, tmp_path, reward=reward, **HINTS)
    batch = batch_of(trainer) | {"advantages": torch.ones(16)}
    trainer.current_gradient_accumulation_steps = 1
    trainer._policy_loss(trainer.model, batch).backward()
    found = torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])
    hinted = reward.calls[1]
    assert relative_error(found, hand_made_gradient(tiny_model, hinted, "dr_grpo", advantage=1)) < 1e-5
    assert relative_error(found, hand_made_gradient(tiny_model, hinted, "dr_grpo", advantage=1, first=0)) > 0.1


def test_reference_log_probabilities_and_counts_are_those_of_the_hinted_rows(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, reward=HintedParity(), beta=0.1, **HINTS)
    batch = batch_of(trainer)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad():
        logps = trainer._get_per_token_logps_and_entropies(
            trainer.ref_model, ids, mask, batch["completion_ids"].size(1)
        )[0]
    counts = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert torch.allclose(logps[counts], batch["ref_per_token_logps"][counts], atol=1e-5)
    assert batch["num_items_in_batch"] == counts.sum()
    assert (batch["tool_mask"][:, :2] == 0).all()


def test_what_is_logged_describes_the_rollouts_without_hint(tiny_model, tmp_path):
    reward = HintedParity()
    trainer = make_trainer(tiny_model, tmp_path, reward=reward, log_completions=True, **HINTS | {"max_steps": 1})
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    plain, hinted = reward.calls
    assert entry["hpt/hinted_share"] == entry["hpt/none_solved"] == 1
    assert 0 < entry["hpt/hinted_solve_rate"] < 1
    assert entry["reward"] == 0
    assert entry["completions/mean_length"] == pytest.approx(sum(map(len, plain)) / 16)
    assert max(map(len, hinted)) == 12
    prompts = AutoTokenizer.from_pretrained(tiny_model)(ROWS["prompt"][:4])["input_ids"]
    assert entry["num_tokens"] == 2 * 4 * sum(map(len, prompts)) + sum(map(len, plain + hinted))
    completions = [path for path in Path(tmp_path).rglob("*.parquet") if "completions" in path.name]
    assert len(pd.read_parquet(completions[0])) == 16


def test_conversations_continue_the_assistants_turn(tiny_model, tmp_path):
    rows = ROWS.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    reward = HintedParity()
    trainer = make_trainer(tiny_model, tmp_path, rows=rows, reward=reward, **HINTS | {"max_steps": 1})
    trainer.train()
    trainer.create_model_card()
    assert "continued the beginning of the demonstration (at first 50% of it)" in (tmp_path / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for row, ids in enumerate(reward.calls[1]):
        assert tokenizer.decode(ids).startswith(ROWS[row // 4]["demonstration"][:2])


def test_where_every_prompt_is_solved_it_changes_nothing(tiny_model, tmp_path):
    def first_of_four(prompts, **columns):
        return [float(row % 4 == 0) for row in range(len(prompts))]

    on, off = (
        trained_parameters(tiny_model, tmp_path / str(fraction), reward=first_of_four, hint_fraction=fraction)
        for fraction in (0.5, 0.0)
    )
    assert torch.equal(on, off)


def test_the_share_shrinks_where_hinted_rollouts_solve_the_prompt():
    fractions = HintFractions(0.5)
    fractions.note("easy", 0.5)
    assert fractions.of("easy") == 0.25
    assert fractions.of("new") == 0.475  # 0.5 + 0.1 (0.25 - 0.5)
    fractions.note("easy", 1.0)
    fractions.note("hard", 0.0)
    # Before: 0.475 + 0.1 (0.125 - 0.475) = 0.44; halfway to 1.
    assert (fractions.of("easy"), fractions.of("hard")) == (0.125, 0.72)
    fractions.note("hard", 0.25)
    fractions.note("easy", math.nan)
    assert (fractions.of("easy"), fractions.of("hard")) == (0.125, 0.72)
    copy = HintFractions(0.9)
    copy.load_state_dict(fractions.state_dict())
    assert copy.state_dict() == fractions.state_dict()


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_processes_generate_equal_shares_of_complete_groups(processes, count):
    hints = [Hint(group, str(group), {}, [group]) for group in range(count)]
    shares = [own_share(hints, RowIndex(rank, processes, group_size=4)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    groups = [hint.group for share in shares for hint in share]
    assert groups[: 4 * count] == [group for group in range(count) for _ in range(4)]
    assert len(groups) % 4 == 0
    assert len(groups) - 4 * count < 4 * processes


def no_tool(x: int) -> int:
    """A tool.

    Args:
        x: a number.
    """
    return x


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer": {"tools": [no_tool]}}, "does not work with tools"),
        ({"trainer": {"rollout_func": lambda prompts, trainer: {}}}, "does not work with rollout_func"),
        ({"trainer": {"environment_factory": dict}}, "does not work with environment_factory"),
        ({"algorithm": "luffy"}, "needs the gate and the policy gradient of algorithm='hpt'"),
        ({"algorithm": "srft"}, "needs the gate and the policy gradient of algorithm='hpt'"),
        ({"gate": "off", "rows": ROWS.remove_columns("demonstration")}, "No row of the training data has a demonstr"),
        (
            {"gate": "off", "rows": ROWS.add_column("image", [""] * 16)},
            "Prompts with images .* support neither",
        ),
        ({"hint_fraction": 1.0}, r"hint_fraction must be in \[0, 1\)"),
    ],
)
def test_what_it_cannot_do_is_refused(tiny_model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tiny_model, tmp_path, **(HINTS | options))


def test_a_resumed_run_continues_with_the_same_prefixes(tiny_model, tmp_path):
    options = HINTS | {"save_strategy": "steps", "save_steps": 1, "max_steps": 5, "rows": ROWS.select(range(8))}
    ends = []
    for name, checkpoint in (("complete", None), ("resumed", str(tmp_path / "complete" / "checkpoint-3"))):
        trainer = make_trainer(tiny_model, tmp_path / name, reward=HintedParity(), **options)
        trainer.train(checkpoint)
        state = {"parameters": parameters(trainer), "optimizer": trainer.optimizer.state_dict()["state"]}
        state["hints"] = trainer._hint_fractions.state_dict()
        history = pd.read_parquet(Path(trainer.args.output_dir) / "gate.parquet")
        ends.append((state, log_without_times(trainer.state.log_history), history))
    assert differences(*ends) == []
    assert len(set(trainer._hint_fractions.by_prompt.values())) > 1


def test_no_prefix_fills_the_context_or_the_completion(tiny_model, tmp_path):
    rows = ROWS.map(lambda row: {"demonstration": "so " + "1" * 200})
    reward = HintedParity()
    options = HINTS | {"hint_fraction": 0.99, "max_demonstration_length": 300, "max_steps": 1, "rows": rows}
    trainer = make_trainer(tiny_model, tmp_path, reward=reward, **options)
    trainer.train()
    # 11 tokens of the demonstration, then one of the policy's.
    assert {len(ids) for ids in reward.calls[1]} == {12}
    assert len({tuple(ids[:11]) for ids in reward.calls[1]}) == 1


def test_the_option_is_checked_alone():
    with pytest.raises(ValueError, match="hint_fraction"):
        HPTConfig("out", use_cpu=True, bf16=False, hint_fraction=-0.1)
