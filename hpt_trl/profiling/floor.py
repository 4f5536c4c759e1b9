"""The least that a machine needs for the tokens of a step: forward and backward passes without padding."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import add_fused_lm_head

from hpt_trl.profiling.workload import ScriptedRollouts, StepCost, StepSpec, synchronized_time

Row = tuple[int, int]
"""Tokens of a row's prompt, and of what is learned after it."""


def floor_step(
    model: str, spec: StepSpec, rows_per_pass: int, dtype: str = "float32", bf16: bool = False, rounds: int = 1
) -> StepCost:
    """Cost of forward and backward passes over the tokens with signal, without padding or anything of a trainer.

    Rows are sorted by length, and those of one pass all get their mean length. So the tokens are those of the step up
    to rounding, and none is padding. The head is the fused one that TRL and HPTTrainer use.

    Args:
        model: a folder or a Hub id.
        spec: the step's prompts.
        rows_per_pass: rows in each forward pass.
        dtype: dtype of the parameters.
        bf16: whether passes run under bf16 autocast.
        rounds: how often to run all passes; the last time is measured.
    """
    policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
    policy.to("cuda" if torch.cuda.is_available() else "cpu").train()
    add_fused_lm_head(policy, outputs=("log_probs", "entropy"))
    passes = [
        (torch.full(shape, 7, device=policy.device), prompt)
        for shape, prompt in even_passes(rows_with_signal(spec, AutoTokenizer.from_pretrained(model)), rows_per_pass)
    ]
    for _ in range(rounds):
        policy.zero_grad()
        begin = synchronized_time(policy.device)
        for ids, prompt in passes:
            labels = ids.clone()
            labels[:, :prompt] = -100
            with torch.autocast(policy.device.type, torch.bfloat16, enabled=bf16):
                loss = policy(input_ids=ids, labels=labels, fused_lm_head=True).loss
            loss.backward()
        seconds = synchronized_time(policy.device) - begin
    return StepCost(seconds, seconds, sum(ids.numel() for ids, _ in passes))


def even_passes(rows: Sequence[Row], rows_per_pass: int) -> list[tuple[tuple[int, int], int]]:
    """Shape (rows, tokens) and prompt length of each pass, longest first.

    Example:
        >>> even_passes([(2, 8), (2, 3), (4, 4)], rows_per_pass=2)  # rows of 10 and 8 tokens, then one of 5
        [((2, 9), 3), ((1, 5), 2)]
    """
    by_length = sorted(rows, key=sum, reverse=True)
    chunks = [by_length[start : start + rows_per_pass] for start in range(0, len(rows), rows_per_pass)]
    return [
        ((len(chunk), round(sum(map(sum, chunk)) / len(chunk))), round(sum(prompt for prompt, _ in chunk) / len(chunk)))
        for chunk in chunks
    ]


def rows_with_signal(spec: StepSpec, tokenizer: Any) -> list[Row]:
    """Every rollout and demonstration that HPT trains on."""
    rows = []
    for prompt, group in ScriptedRollouts(spec, tokenizer).group_of.items():
        lengths = list(group.rollout_lengths) if group.has_signal else []
        if group.demonstration_length and not any(group.rewards):
            lengths.append(group.demonstration_length)
        rows += [(len(tokenizer(prompt)["input_ids"]), length) for length in lengths]
    return rows
