"""Tools and environments end to end: what the assistant wrote is trained, in rollouts and in demonstrations."""

import runpy
import types
from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from hpt_trl.miniature.build import build_tokenizer
from tests.tiny import make_trainer, parameters, relative_error
from tests.trainer.model_families import LastGradient, trained_gradient

CALL = '<tool_call>\n{{"name": "multiply", "arguments": {{"a": {a}, "b": {b}}}}}\n</tool_call><|im_end|>'
RESULT = "\n<|im_start|>user\n<tool_response>\n{}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
LIMIT = 256


def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    return a * b


class Calculator:
    """An environment with one tool."""

    def reset(self, **row) -> None:
        pass

    def multiply(self, a: int, b: int) -> int:
        """Multiply two numbers.

        Args:
            a: the first number.
            b: the second number.
        """
        return a * b


def call_and_answer(a: int, b: int) -> list[dict]:
    function = {"name": "multiply", "arguments": {"a": a, "b": b}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": "multiply", "content": str(a * b)},
        {"role": "assistant", "content": f"It is {a * b}."},
    ]


FACTORS = [(2, 3), (4, 5), (6, 7), (8, 9)]
ROWS = Dataset.from_list(
    [
        {
            "prompt": [{"role": "user", "content": f"{a} * {b}?"}],
            "demonstration": call_and_answer(a, b),
            "solution": str(a * b),
        }
        for a, b in FACTORS
    ]
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with Qwen2.5's chat template, which writes tool calls."""
    folder = tmp_path_factory.mktemp("tools") / "model"
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def answer_of(row: int) -> str:
    """What rollout `row` of 16 says after the result of its tool."""
    return "!" * (1 + row % 4) + "<|im_end|>"


def write_by_script(trainer) -> None:
    """Let the policy call the tool and then answer: a random model would never call it."""

    def generate(self, prompt_ids, *args, **kwargs):
        texts = [self._tokenizer.decode(ids) for ids in prompt_ids]
        is_first = "<tool_response>" not in texts[0]
        written = [
            CALL.format(a=FACTORS[row // 4][0], b=FACTORS[row // 4][1]) if is_first else answer_of(row)
            for row in range(len(texts))
        ]
        return self._tokenizer(written)["input_ids"], None

    trainer._generate_single_turn = types.MethodType(generate, trainer)


def some_are_right(completions, **kwargs):
    """Verdicts of 4 prompts x 4 rollouts, of which the longest is silent: its prompt is always solved."""
    assert all(completion[-2]["content"] == str(a * b) for completion, (a, b) in zip(completions[::4], FACTORS))
    return [float(row >= 12 or row % 4 == 0) for row in range(len(completions))]


def second_prompt_is_hard(completions, **kwargs):
    """Half right, none, all, all but one."""
    return [1.0, 1.0, 0.0, 0.0, *[0.0] * 4, *[1.0] * 4, 0.0, 1.0, 1.0, 1.0]


def scripted_trainer(model, folder, reward=some_are_right, **options):
    own = {"rows": ROWS, "max_completion_length": LIMIT, "max_steps": 1, "max_grad_norm": 0.0}
    tools = {"tools": [multiply]} | options.pop("trainer", {})
    trainer = make_trainer(model, folder, reward=reward, trainer=tools, **(own | options))
    write_by_script(trainer)
    return trainer


def scripted_gradient(model, folder, **options):
    trainer = scripted_trainer(model, folder, **options)
    kept = LastGradient()
    trainer.add_callback(kept)
    trainer.train()
    return kept.gradient


def pieces_of_ids(tokenizer, prompt_ids, pieces):
    """Ids of a prompt and of pieces after it, and 1 for each token of the pieces that is trained on."""
    ids, mask = list(prompt_ids), [0] * len(prompt_ids)
    for text, is_trained in pieces:
        new = tokenizer(text)["input_ids"]
        ids, mask = ids + new, mask + [int(is_trained)] * len(new)
    return torch.tensor([ids]), torch.tensor(mask[1:], dtype=torch.float32)


def prompts_of(tokenizer):
    return [
        tokenizer.apply_chat_template(
            row["prompt"], tools=[multiply], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        for row in ROWS
    ]


def token_logps(model, ids):
    logps = model(ids).logits[0, :-1].log_softmax(-1)
    return logps.gather(1, ids[0, 1:, None])[:, 0]


@pytest.mark.parametrize("source", ["tools", "environment"])
def test_demonstrations_train_what_the_assistant_wrote(model, tmp_path, source):
    own = {"tools": [multiply]} if source == "tools" else {"tools": None, "environment_factory": Calculator}
    found = scripted_gradient(model, tmp_path, gate_threshold=1.0, trainer=own)

    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    losses = []
    for prompt, (a, b) in zip(prompts_of(tokenizer), FACTORS):
        pieces = [(CALL.format(a=a, b=b), True), (RESULT.format(a * b), False), (f"It is {a * b}.<|im_end|>", True)]
        ids, mask = pieces_of_ids(tokenizer, prompt, pieces)
        losses.append(-(token_logps(policy, ids) * mask).sum() / mask.sum())
    torch.stack(losses).mean().backward()
    assert relative_error(found, trained_gradient(policy)) < 1e-5


def test_the_estimators_loss_leaves_out_what_the_tool_wrote(model, tmp_path):
    found = scripted_gradient(model, tmp_path, algorithm="reinforce")

    tokenizer, policy = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    loss = 0.0
    for row in range(16):
        a, b = FACTORS[row // 4]
        pieces = [(CALL.format(a=a, b=b), True), (RESULT.format(a * b), False), (answer_of(row), True)]
        ids, mask = pieces_of_ids(tokenizer, prompts_of(tokenizer)[row // 4], pieces)
        # +1 for a right rollout, -1 for a wrong one; loss_type "dr_grpo" divides by the maximum length.
        advantage = 1.0 if row >= 12 or row % 4 == 0 else -1.0
        loss = loss - advantage * (token_logps(policy, ids) * mask).sum() / LIMIT / 16
    loss.backward()
    assert relative_error(found, trained_gradient(policy)) < 1e-5


@pytest.mark.parametrize("loss_type", ["dr_grpo", "bnpo"])
def test_rows_are_cut_together_with_the_masks_of_their_tools(model, tmp_path, loss_type):
    """`bnpo` divides by the tokens of a micro-batch, without those that the tool wrote."""
    options = {"gate_threshold": 0.25, "loss_type": loss_type, "reward": second_prompt_is_hard}
    kept = scripted_gradient(model, tmp_path, skip_zero_signal_rollouts=False, **options)
    assert relative_error(scripted_gradient(model, tmp_path, **options), kept) < 1e-5


def test_gate_shut_is_grpo(model, tmp_path):
    grpo = scripted_trainer(model, tmp_path, hpt=False)
    before = parameters(grpo).clone()
    grpo.train()
    hpt = scripted_trainer(model, tmp_path, gate="off")
    hpt.train()
    assert torch.equal(parameters(hpt), parameters(grpo))
    assert not torch.equal(parameters(grpo), before)
    assert grpo.state.log_history[0]["tools/call_frequency"] == 1


def test_the_script_of_a_calculator_trains_on_its_demonstrations(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(Path(__file__).parents[2] / "notebooks" / "scripts" / "calculator_tool.py"))
    options = {"max_steps": 1, "max_completion_length": 16, "max_demonstration_length": 512, "save_strategy": "no"}
    options |= {"use_cpu": True, "bf16": False, "report_to": "none", "num_generations": 2, "logging_steps": 1}
    trainer = script["train"](model, 8, per_device_train_batch_size=4, gradient_accumulation_steps=1, **options)
    log = trainer.state.log_history[0]
    # A random model solves nothing: every prompt is trained on its demonstration.
    assert log["hpt/demonstration_share"] == 1
    assert log["demonstrations/refused"] == log["demonstrations/cut"] == 0
