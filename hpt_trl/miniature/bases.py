"""Base models of the comparison, trained from scratch: `python -m hpt_trl.miniature.bases NAME FOLDER`.

Pretraining has two phases, as in `build.py`: the skill phase teaches step-by-step answers, and the habit phase teaches
the habit of answering without steps. Both use only the easy problems of each family. With hard problems, a base would
fail by habit alone, and any method would correct that within ten steps.
The solve rate of a base on a family depends on how often the answers of that family show their steps in the habit
phase: `Base.step_shares`, chosen so that each model solves 5% to 40% of every family.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpt_trl.common.files import atomic_path
from hpt_trl.miniature import build, families, tasks
from hpt_trl.miniature.build import build_model, build_tokenizer, make_batch, save
from hpt_trl.miniature.families import SUITES, sample_row

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BATCH_SIZE = 32
WARMUP_STEPS = 50
MUON_LEARNING_RATE = 4e-3
"""For weight matrices. Decays to a tenth at the end of training, like AdamW's."""
ADAMW_LEARNING_RATE = 4e-3
"""For embeddings, norms and biases."""

SKILL_WEIGHTS = {"chain2": 1.0, "chain4": 1.5, "sum": 1.5, "product": 2.0, "remainder": 2.0, "digits": 1.5,
                 "longer": 0.7, "words": 2.0}  # fmt: skip
"""Relative frequency of each suite in the skill phase. In the habit phase all suites are equally frequent."""


@dataclass(frozen=True)
class Base:
    """Recipe of one base model.

    Args:
        architecture: "qwen2" or "llama".
        hidden_size: width; the MLP is three times as wide.
        layers: depth.
        skill_steps: optimizer steps of the skill phase.
        habit_steps: optimizer steps of the habit phase.
        step_shares: fraction of answers that show their steps in the habit phase, by suite.
        seed: seed of weights and problems.
    """

    architecture: str
    hidden_size: int
    layers: int
    skill_steps: int
    habit_steps: int
    step_shares: Mapping[str, float]
    seed: int = 0


_SHARES = {"chain2": 0.35, "chain4": 0.55, "sum": 0.5, "product": 0.5, "remainder": 0.3, "digits": 0.42,
           "longer": 0.6, "words": 0.6}  # fmt: skip

_SMALL = Base("qwen2", 64, 3, 900, 150, _SHARES | {"digits": 0.5})

MAIN_BASES: dict[str, Base] = {
    "qwen2-small": _SMALL,
    "llama-small": Base("llama", 64, 3, 900, 150, _SHARES),
    "qwen2-large": Base("qwen2", 96, 3, 700, 120, _SHARES),
    "llama-large": Base("llama", 96, 3, 700, 120, _SHARES | {"digits": 0.35}),
}
"""Two architectures in two sizes: 0.18M and 0.38M parameters."""

BASES: dict[str, Base] = MAIN_BASES | {"qwen2-weak": replace(_SMALL, skill_steps=_SMALL.skill_steps // 2)}
"""All of them. The weak one learned the skills for half as long."""


def fingerprint(name: str) -> str:
    """Identifies the recipe of a base: a hash of its settings and of the code of problems and pretraining."""
    paths = [str(module.__file__) for module in (tasks, families, build)] + [__file__]
    texts = [Path(path).read_text() for path in paths] + [repr(BASES[name])]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def base_folder(name: str, cache: Path) -> Path:
    """The folder where the base is, or will be, built."""
    return cache / f"{name}-{fingerprint(name)}"


def build_base(base: Base, folder: Path) -> None:
    """Build a base model in a folder that appears only when it is complete. Takes minutes on one core.

    Args:
        base: the recipe, from `BASES` or another.
        folder: the folder to create; must not exist.
    """
    import torch

    # The order of floating-point sums depends on the number of threads; one thread makes a rebuild bitwise identical.
    torch.set_num_threads(1)
    torch.manual_seed(base.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, base.architecture, base.hidden_size, base.layers)
    pretrain(model, tokenizer, base)
    with atomic_path(folder) as temporary:
        save(model, tokenizer, temporary)


class BatchSampler:
    """An endless supply of batches of prompts and answers.

    Args:
        base: the recipe; sets how often answers show their steps.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self.generator = random.Random(base.seed)
        self._batches: list[list[tuple[str, str]]] = []

    def next(self, skill: bool) -> list[tuple[str, str]]:
        """Return the next batch.

        Args:
            skill: whether to sample for the skill phase, in which every answer shows its steps.
        """
        if not self._batches:
            # Sorting the texts of eight batches by length saves a third of the padding.
            texts = sorted((self._sample(skill) for _ in range(8 * BATCH_SIZE)), key=lambda text: len("".join(text)))
            self._batches = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
            self.generator.shuffle(self._batches)
        return self._batches.pop()

    def _sample(self, skill: bool) -> tuple[str, str]:
        weights = SKILL_WEIGHTS if skill else dict.fromkeys(SUITES, 1.0)
        suite = self.generator.choices(list(weights), list(weights.values()))[0]
        row = sample_row(self.generator, suite, "train", only_easy=True)
        if skill or self.generator.random() < self.base.step_shares[suite]:
            return row["prompt"], row["demonstration"]
        return row["prompt"], row["demonstration"].splitlines()[-1]


def pretrain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, base: Base) -> None:
    """Pretrain a model in place: first the skill phase, then the habit phase."""
    import torch

    batches, steps = BatchSampler(base), base.skill_steps + base.habit_steps
    optimizers = _optimizers(model)

    def learning_rate_factor(step: int) -> float:
        return min((step + 1) / WARMUP_STEPS, 0.55 + 0.45 * math.cos(math.pi * step / steps))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor) for optimizer in optimizers]
    model.train()
    for step in range(steps):
        inputs, labels = make_batch(batches.next(skill=step < base.skill_steps), tokenizer)
        # Right padding needs no attention mask: in a causal model, no token attends to the padding after it.
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers):
            optimizer.step()
            scheduler.step()
        model.zero_grad()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    model.eval()


def _optimizers(model: PreTrainedModel) -> list[torch.optim.Optimizer]:
    """Muon for weight matrices, which halves the number of steps, and AdamW for all other parameters."""
    import torch

    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed" not in name
        (matrices if is_matrix else others).append(parameter)
    options: dict[str, Any] = {"weight_decay": 0.01}
    return [
        torch.optim.Muon(matrices, lr=MUON_LEARNING_RATE, adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW(others, lr=ADAMW_LEARNING_RATE, betas=(0.9, 0.98), **options),
    ]


def main() -> None:
    """Parse the command line and build one base."""
    parser = argparse.ArgumentParser(description="Pretrain a base model of the comparison from scratch, on one core.")
    parser.add_argument("name", choices=BASES, help="which base model")
    parser.add_argument("folder", type=Path, help="folder to create; must not exist")
    arguments = parser.parse_args()
    build_base(BASES[arguments.name], arguments.folder)


if __name__ == "__main__":
    main()
