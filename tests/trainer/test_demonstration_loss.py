"""The demonstrations' part of the loss, against loops written by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hpt_trl.miniature.build import build_tokenizer
from tests.tiny import ROWS, fixed_rollouts, make_trainer, relative_error, step_gradient


def hand_made_gradient(model_path, normalization="prompt", loss_of_logps=None, first=0, count=4):
    """Gradient of plain cross-entropy over a few prompts' demonstrations, one sequence at a time."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_path), AutoTokenizer.from_pretrained(model_path)
    losses, tokens = [], 0
    for row in ROWS.select(range(first, first + count)):
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["demonstration"])["input_ids"], tokenizer.eos_token_id]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        nll = cross_entropy(logits, torch.tensor(answer), reduction="none")
        part = nll if loss_of_logps is None else loss_of_logps(-nll)
        losses.append(part.mean() if normalization == "prompt" else part.sum())
        tokens += len(answer)
    (sum(losses) / (count if normalization == "prompt" else tokens)).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("normalization", ["prompt", "token"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gate_always_on_demonstrations_is_cross_entropy(tiny_model, tmp_path, normalization, temperature):
    found = step_gradient(
        tiny_model, tmp_path, gate_threshold=1.0, sft_normalization=normalization, temperature=temperature
    )
    assert relative_error(found, hand_made_gradient(tiny_model, normalization)) < 1e-5


def test_sft_weight_scales_the_demonstrations(tiny_model, tmp_path):
    found = step_gradient(tiny_model, tmp_path, gate_threshold=1.0, sft_weight=0.3)
    assert relative_error(found, 0.3 * hand_made_gradient(tiny_model)) < 1e-5


def test_off_policy_arm_is_the_shaped_policy_gradient(tiny_model, tmp_path):
    # Rollout 0 of each prompt is right: 1 of 4, so each demonstration has advantage 1 - 2/5 = 0.6.
    def first_is_right(completion_ids, **kwargs):
        return [float(row % 4 == 0) for row in range(len(completion_ids))]

    found = step_gradient(tiny_model, tmp_path, reward=first_is_right, gate_off_policy_threshold=0.25)
    expected = hand_made_gradient(tiny_model, loss_of_logps=lambda logps: -0.6 * logps.exp() / (logps.exp() + 0.1))
    assert relative_error(found, expected) < 1e-5


def test_sft_weight_leaves_the_off_policy_arm_alone(tiny_model, tmp_path):
    def first_is_right(completion_ids, **kwargs):
        return [float(row % 4 == 0) for row in range(len(completion_ids))]

    options = {"reward": first_is_right, "gate_off_policy_threshold": 0.25}
    weighted = step_gradient(tiny_model, tmp_path, sft_weight=0.0, **options)
    assert relative_error(weighted, step_gradient(tiny_model, tmp_path, **options)) == 0


def test_a_short_last_window_weighs_its_own_prompts(tiny_model, tmp_path):
    """12 of 16 prompts' rows: an epoch of three micro-batches, of which the last step has one."""
    options = {"rows": ROWS.select(range(6)), "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    sgd = {"optim": "sgd", "learning_rate": 1e-4, "max_grad_norm": 0.0, "gate_threshold": 1.0, "max_steps": -1}
    trainer = make_trainer(tiny_model, tmp_path, steps_per_generation=1, num_train_epochs=1, **options, **sgd)
    before = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    trainer.train()
    after = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    # Step 1: prompts 0 to 3, their mean. Step 2: prompts 4 and 5, theirs.
    expected = hand_made_gradient(tiny_model) + hand_made_gradient(tiny_model, first=4, count=2)
    assert relative_error((before - after) / 1e-4, expected) < 5e-3


def test_positions_do_not_depend_on_what_stands_beside(tmp_path):
    """GPT-2 has absolute positions: with prompts padded on the left, the cut would change the gradient."""
    config = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
        pad_token_id=0, eos_token_id=1, bos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    build_tokenizer().save_pretrained(tmp_path / "gpt2")

    def gradient(cuts):
        options = {
            "per_device_train_batch_size": 16 // cuts,
            "gradient_accumulation_steps": cuts,
            "gate_threshold": 1.0,
        }
        return step_gradient(str(tmp_path / "gpt2"), tmp_path, rows=ROWS.select([0, 10, 1, 11]), **options)

    assert relative_error(gradient(4), gradient(1)) < 1e-5


def test_soft_gate_is_the_weighted_sum_of_both_parts(tiny_model, tmp_path):
    def gradient(rollouts, demonstration):
        def gate(rate_P, step):
            return torch.full_like(rate_P, rollouts), torch.full_like(rate_P, demonstration)

        return step_gradient(tiny_model, tmp_path, trainer={"gate": gate, "rollout_func": fixed_rollouts})

    expected = 0.25 * gradient(1.0, 0.0) + 0.75 * gradient(0.0, 1.0)
    assert relative_error(gradient(0.25, 0.75), expected) < 1e-5


@pytest.mark.parametrize("normalization", ["prompt", "token"])
@pytest.mark.parametrize("loss_type", ["dr_grpo", "grpo", "dapo"])
def test_gradient_does_not_depend_on_the_cut(tiny_model, tmp_path, loss_type, normalization):
    """The same 16 rows as 1, 2 and 4 micro-batches."""

    def gradient(cuts):
        return step_gradient(
            tiny_model,
            tmp_path,
            per_device_train_batch_size=16 // cuts,
            gradient_accumulation_steps=cuts,
            loss_type=loss_type,
            sft_normalization=normalization,
            gate="linear",
            trainer={"rollout_func": fixed_rollouts},
        )

    whole = gradient(1)
    assert relative_error(gradient(2), whole) < 1e-5
    assert relative_error(gradient(4), whole) < 1e-5


def test_one_generation_spread_over_two_steps_gives_each_demonstration_once(tiny_model, tmp_path):
    """8 micro-batches are generated and 4 make a step: over both steps every demonstration counts as in one."""
    sgd = {"optim": "sgd", "learning_rate": 1e-4, "max_grad_norm": 0.0, "gate_threshold": 1.0}
    options = {"steps_per_generation": 8, "per_device_train_batch_size": 2, "max_steps": 2} | sgd
    trainer = make_trainer(tiny_model, tmp_path, **options)
    before = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    trainer.train()
    after = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    # Two steps of 8 rows, two prompts' worth each: the mean over two prompts twice is twice the mean over four. The
    # second step starts where the first ended, hence the looser bound.
    assert relative_error((before - after) / 1e-4, 2 * hand_made_gradient(tiny_model)) < 5e-3


def test_an_off_policy_weight_beside_full_rollouts_adds_its_part(tiny_model, tmp_path):
    def gradient(rollouts, off_policy):
        def gate(rate_P, step):
            weights = (rollouts, 0.0, off_policy)
            return tuple(torch.full_like(rate_P, weight) for weight in weights)

        return step_gradient(tiny_model, tmp_path, trainer={"gate": gate, "rollout_func": fixed_rollouts})

    expected = gradient(1.0, 0.0) + 0.5 * gradient(0.0, 1.0)
    assert relative_error(gradient(1.0, 0.5), expected) < 1e-5
    assert relative_error(gradient(1.0, 0.0), expected) > 0.01
