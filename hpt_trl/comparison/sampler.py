"""Batched sampling of many short completions from a small model: finished rows leave the batch.

transformers' `generate` computes every row until the longest one has finished. The base models here answer most
questions in five tokens and some in fifty, so most of that would be padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache


@dataclass(frozen=True)
class Sample:
    """One completion.

    Args:
        text: decoded, without special tokens.
        tokens: length in tokens, end of sequence included.
        entropy: mean over its tokens of the policy's entropy at temperature 1, in nats.
    """

    text: str
    tokens: int
    entropy: float


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    batch_size: int = 512,
) -> list[Sample]:
    """Sample one completion per prompt, independently of torch's global random state.

    Args:
        model: a causal LM of transformers; its training mode is restored afterwards.
        tokenizer: a tokenizer with a pad and an end-of-sequence token.
        prompts: texts; repeat a prompt to sample it several times.
        temperature: sampling temperature, above 0.
        max_new_tokens: maximum length of a completion.
        seed: seed of the sampling.
        batch_size: prompts per batch.

    Returns:
        Samples in the order of the prompts.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator(device=model.device).manual_seed(seed)
    ids = tokenizer(list(prompts))["input_ids"]
    # Batches of similar prompt length need little padding.
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    samples: dict[int, Sample] = {}
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = _Batch(model, [ids[index] for index in indices], tokenizer.pad_token_id)
        batch.run(tokenizer.eos_token_id, temperature, max_new_tokens, generator)
        texts = tokenizer.batch_decode(batch.completions, skip_special_tokens=True)
        for index, text, tokens, entropy in zip(indices, texts, batch.completions, batch.entropy_B.tolist()):
            samples[index] = Sample(text, len(tokens), entropy / len(tokens))
    model.train(was_training)
    return [samples[index] for index in range(len(ids))]


class _Batch:
    """Rows that are sampled together; `_A` counts the active ones, those that have not finished.

    Args:
        model: a causal LM.
        prompts: token ids of each row.
        pad_id: pad token id; padding is on the left.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad_id: int) -> None:
        self.model = model
        rows = [torch.tensor(prompt, device=model.device) for prompt in prompts]
        self.ids_B_T = pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side="left")
        self.mask_B_T = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        self.positions_B_T = (self.mask_B_T.cumsum(dim=1) - 1).clamp(min=0)
        self.cache = DynamicCache()
        self.active_A = torch.arange(len(prompts), device=model.device)
        self.completions: list[list[int]] = [[] for _ in prompts]
        self.entropy_B = torch.zeros(len(prompts), device=model.device)  # sums over tokens, in nats

    def run(self, eos_id: int, temperature: float, max_new_tokens: int, generator: torch.Generator) -> None:
        """Sample until every row has finished or has `max_new_tokens` tokens."""
        for _ in range(max_new_tokens):
            token_A = self._sample_next(temperature, generator)
            for row, token in zip(self.active_A.tolist(), token_A.tolist()):
                self.completions[row].append(token)
            self._keep((token_A != eos_id).nonzero().flatten(), token_A)
            if len(self.active_A) == 0:
                return

    def _sample_next(self, temperature: float, generator: torch.Generator) -> Tensor:
        """(A,) next tokens of the active rows."""
        logits_A_V = self.model(
            input_ids=self.ids_B_T,
            attention_mask=self.mask_B_T,
            position_ids=self.positions_B_T,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logps_A_V = logits_A_V.log_softmax(dim=-1)
        self.entropy_B[self.active_A] -= (logps_A_V.exp() * logps_A_V).sum(dim=-1)
        return torch.multinomial((logits_A_V / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]

    def _keep(self, keep_K: Tensor, token_A: Tensor) -> None:
        """Keep only these (K,) positions of the active rows, and append the sampled tokens."""
        if len(keep_K) < len(token_A):
            self.active_A, token_A = self.active_A[keep_K], token_A[keep_K]
            self.mask_B_T, self.positions_B_T = self.mask_B_T[keep_K], self.positions_B_T[keep_K]
            self.cache.batch_select_indices(keep_K)
        self.ids_B_T = token_A.unsqueeze(1)
        self.mask_B_T = torch.cat([self.mask_B_T, self.mask_B_T.new_ones(len(token_A), 1)], dim=1)
        self.positions_B_T = self.positions_B_T[:, -1:] + 1
