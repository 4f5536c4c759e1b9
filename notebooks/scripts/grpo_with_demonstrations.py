# /// script
# requires-python = ">=3.11"
# dependencies = ["hpt-trl @ git+https://github.com/OWNER/hpt_trl"]
# ///
"""The GRPO example of TRL's README with two names changed, on data that has demonstrations.

    uv run grpo_with_demonstrations.py

Needs one GPU with 24 GB. Never run on a GPU; the tests run it with the bundled model on a CPU.
"""

from typing import Any

from datasets import Dataset, load_dataset

from hpt_trl import HPTConfig, HPTTrainer  # in TRL's example: from trl import GRPOConfig, GRPOTrainer
from hpt_trl.rewards import accuracy_reward

INSTRUCTION = "Reason step by step, and put the final answer within \\boxed{}."


def with_demonstration(row: dict[str, str]) -> dict[str, Any]:
    """A row of GSM8K in TRL's columns, and its human solution as the demonstration."""
    reasoning, answer = row["answer"].split("####")
    return {
        "prompt": [{"role": "user", "content": f"{row['question']}\n{INSTRUCTION}"}],
        "demonstration": f"{reasoning.strip()}\nThe answer is \\boxed{{{answer.strip()}}}.",
        "solution": answer.strip(),
    }


def train(model: str, gsm8k: Dataset, **options: Any) -> HPTTrainer:
    """Train a model on rows of GSM8K; the options are those of GRPOConfig, and HPT's own."""
    trainer = HPTTrainer(
        model=model,
        reward_funcs=accuracy_reward,
        args=HPTConfig("runs/grpo_with_demonstrations", **options),
        train_dataset=gsm8k.map(with_demonstration, remove_columns=gsm8k.column_names),
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    train("Qwen/Qwen2.5-0.5B-Instruct", load_dataset("openai/gsm8k", "main", split="train"), max_steps=200)
