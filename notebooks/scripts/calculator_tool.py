# /// script
# requires-python = ">=3.11"
# dependencies = ["hpt-trl @ git+https://github.com/OWNER/hpt_trl"]
# ///
"""A model learns to call a calculator: tools for the rollouts, and demonstrations that call them.

    uv run calculator_tool.py

Needs one GPU with 24 GB. Never run on a GPU; the tests run it with a tiny random model on a CPU.
"""

import random
from typing import Any

from datasets import Dataset

from hpt_trl import HPTConfig, HPTTrainer
from hpt_trl.rewards import accuracy_reward

INSTRUCTION = "Use the calculator, and put the answer within \\boxed{}."


def multiply(a: int, b: int) -> int:
    """Multiply two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    return a * b


def row(a: int, b: int) -> dict[str, Any]:
    """A question, and a demonstration that calls the tool, reads its result and answers.

    Only the two messages of the assistant are trained on.
    """
    call = {"type": "function", "function": {"name": "multiply", "arguments": {"a": a, "b": b}}}
    return {
        "prompt": [{"role": "user", "content": f"What is {a} * {b}? {INSTRUCTION}"}],
        "demonstration": [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "multiply", "content": str(a * b)},
            {"role": "assistant", "content": f"The answer is \\boxed{{{a * b}}}."},
        ],
        "solution": str(a * b),
    }


def train(model: str, rows: int, **options: Any) -> HPTTrainer:
    """Train a model whose chat template writes tool calls."""
    numbers = random.Random(0)
    data = [row(numbers.randint(100, 999), numbers.randint(100, 999)) for _ in range(rows)]
    trainer = HPTTrainer(
        model=model,
        reward_funcs=accuracy_reward,
        args=HPTConfig("runs/calculator_tool", **options),
        train_dataset=Dataset.from_list(data),
        tools=[multiply],
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    train("Qwen/Qwen2.5-0.5B-Instruct", rows=2000, max_steps=200, max_completion_length=512)
