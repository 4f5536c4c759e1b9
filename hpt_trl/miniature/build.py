"""Build the bundled miniature model: `python -m hpt_trl.miniature.build`."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpt_trl.miniature import MODEL_PATH
from hpt_trl.miniature.tasks import sample_problem

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD_TOKEN = "<pad>"
EOS_TOKEN = "<eos>"
BOX = "\\boxed{"
BATCH_SIZE = 32
LEARNING_RATE = 3e-3
WARMUP_STEPS = 50

# The skill phase of pretraining teaches step-by-step calculation. It has few of the longest chains, so that
# demonstrations remain useful after a model has learned to show its steps.
SKILL_FRACTION = 0.7
SKILL_LENGTH_WEIGHTS = {1: 4, 2: 6, 3: 6, 4: 1}
# The habit phase makes the model answer without steps by default. The fraction of step-by-step answers decreases with
# the length, so that 8 samples usually solve a short chain and often miss a long one, but can solve every chain.
HABIT_STEP_SHARES = {1: 0.5, 2: 0.1, 3: 0.04, 4: 0.015}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer, one token per ASCII character, in which `\\boxed{` is a single token.

    transformers rebuilds the tokenizer of every Qwen2 model as a byte-level BPE from its vocabulary and merges alone,
    so for `AutoTokenizer` to load it, this tokenizer has to be one too, without merges.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [PAD_TOKEN, EOS_TOKEN, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(BOX, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        # Set only because the default of the Qwen2 class would add a token to the vocabulary.
        unk_token=EOS_TOKEN,
        padding_side="left",
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, architecture: str = "qwen2", hidden_size: int = 128, layers: int = 4
) -> PreTrainedModel:
    """Return a randomly initialized model, by default with about 0.9M parameters.

    Args:
        tokenizer: Tokenizer of the model.
        architecture: A `model_type` of transformers.
        hidden_size: Width of the model; the MLP is three times as wide.
        layers: Number of layers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return AutoModelForCausalLM.from_config(config)


def sample_text(generator: random.Random, skill: bool) -> tuple[str, str]:
    """Sample a prompt and an answer from the training problems.

    Args:
        generator: Source of randomness.
        skill: Whether to sample for the skill phase, in which every answer shows its steps.

    Returns:
        The prompt, and the answer with its steps or only the boxed result.
    """
    weights = SKILL_LENGTH_WEIGHTS if skill else dict.fromkeys(HABIT_STEP_SHARES, 1)
    length = generator.choices(list(weights), list(weights.values()))[0]
    row = sample_problem(generator, length, "train")
    if skill or generator.random() < HABIT_STEP_SHARES[length]:
        return row["prompt"], row["demonstration"]
    return row["prompt"], row["demonstration"].splitlines()[-1]


def make_batch(
    texts: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode prompts and answers, right-padded, with labels on the answer and its end-of-sequence token only."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    inputs, labels = [], []
    for prompt, answer in texts:
        prompt_ids = tokenizer.encode(prompt)
        answer_ids = tokenizer.encode(answer + EOS_TOKEN)
        inputs.append(torch.tensor(prompt_ids + answer_ids))
        labels.append(torch.tensor([-100] * len(prompt_ids) + answer_ids))
    padding = int(tokenizer.pad_token_id)
    return (
        pad_sequence(inputs, batch_first=True, padding_value=padding),
        pad_sequence(labels, batch_first=True, padding_value=-100),
    )


def pretrain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> None:
    """Pretrain the model in place: first the skill phase, then the habit phase."""
    import torch
    from tqdm import tqdm

    generator = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 0.51 + 0.49 * math.cos(math.pi * step / steps))
    )
    model.train()
    progress = tqdm(range(steps), desc="Pretraining the miniature model")
    for step in progress:
        skill = step < SKILL_FRACTION * steps
        inputs, labels = make_batch([sample_text(generator, skill) for _ in range(BATCH_SIZE)], tokenizer)
        # Right padding needs no attention mask: in a causal model, no token attends to the padding after it.
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Save the model and tokenizer as a folder that the `Auto` classes of transformers load."""
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Parse the command line, pretrain the miniature model and save it."""
    parser = argparse.ArgumentParser(description="Pretrain the bundled miniature model from scratch, on one core.")
    parser.add_argument("--output", type=Path, default=Path(MODEL_PATH), help="folder to write (default: the package)")
    parser.add_argument("--steps", type=int, default=1600, help="pretraining steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and problems (default: %(default)s)")
    arguments = parser.parse_args()

    import torch

    # The order of floating-point sums depends on the number of threads; one thread makes a rebuild bitwise identical.
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    pretrain(model, tokenizer, arguments.steps, arguments.seed)
    save(model, tokenizer, arguments.output)


if __name__ == "__main__":
    main()
