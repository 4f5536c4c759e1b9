"""Many short completions of a small model at once: rows that have ended leave the batch.

`generate` of transformers computes every row until the longest has ended. A base here answers most questions in five
tokens and some in fifty, so that most of that would be padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache


@dataclass(frozen=True)
class Drawn:
    """One completion: its text, its length in tokens (end of sequence included), the entropy it was drawn with.

    Args:
        entropy: mean over its tokens of the policy's entropy at temperature 1, in nats.
    """

    text: str
    tokens: int
    entropy: float


@torch.no_grad()
def draw(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    rows: int = 512,
) -> list[Drawn]:
    """One completion a prompt, `rows` at a time, whatever state torch's own generator is in.

    Args:
        model: a causal LM of transformers; left in the mode it came in.
        tokenizer: with a pad and an end-of-sequence token.
        prompts: texts; repeat one to sample it several times.
        temperature: of the sampling, above 0.
        max_new_tokens: longest completion.
        seed: of the sampling.
        rows: completions drawn side by side.
    """
    was_training = model.training
    model.eval()
    generator = torch.Generator(device=model.device).manual_seed(seed)
    ids = tokenizer(list(prompts))["input_ids"]
    # Of like length together, so that little is padded.
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    drawn: dict[int, Drawn] = {}
    for start in range(0, len(order), rows):
        places = order[start : start + rows]
        batch = _Batch(model, [ids[place] for place in places], tokenizer.pad_token_id)
        batch.run(tokenizer.eos_token_id, temperature, max_new_tokens, generator)
        texts = tokenizer.batch_decode(batch.completions, skip_special_tokens=True)
        for place, text, tokens, entropy in zip(places, texts, batch.completions, batch.entropies.tolist()):
            drawn[place] = Drawn(text, len(tokens), entropy / len(tokens))
    model.train(was_training)
    return [drawn[place] for place in range(len(ids))]


class _Batch:
    """Rows that are drawn side by side.

    Args:
        model: a causal LM.
        prompts: token ids of each row.
        pad_id: of the padding, on the left.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]], pad_id: int) -> None:
        self.model = model
        rows = [torch.tensor(prompt, device=model.device) for prompt in prompts]
        self.ids_B_T = pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side="left")
        self.mask_B_T = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        self.positions_B_T = (self.mask_B_T.cumsum(dim=1) - 1).clamp(min=0)
        self.cache = DynamicCache()
        self.alive_A = torch.arange(len(prompts), device=model.device)  # rows that have not ended
        self.completions: list[list[int]] = [[] for _ in prompts]
        self.entropies = torch.zeros(len(prompts), device=model.device)  # (B,) sums over tokens, in nats

    def run(self, eos_id: int, temperature: float, max_new_tokens: int, generator: torch.Generator) -> None:
        """Draw until every row has ended or is as long as it may be."""
        for _ in range(max_new_tokens):
            token_A = self._next(temperature, generator)
            for row, token in zip(self.alive_A.tolist(), token_A.tolist()):
                self.completions[row].append(token)
            self._keep((token_A != eos_id).nonzero().flatten(), token_A)
            if len(self.alive_A) == 0:
                return

    def _next(self, temperature: float, generator: torch.Generator) -> Tensor:
        """(A,) next tokens of the rows that are alive."""
        logits_A_V = self.model(
            input_ids=self.ids_B_T,
            attention_mask=self.mask_B_T,
            position_ids=self.positions_B_T,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        logps_A_V = logits_A_V.log_softmax(dim=-1)
        self.entropies[self.alive_A] -= (logps_A_V.exp() * logps_A_V).sum(dim=-1)
        return torch.multinomial((logits_A_V / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]

    def _keep(self, kept_K: Tensor, token_A: Tensor) -> None:
        """Go on with these rows of those alive."""
        if len(kept_K) < len(token_A):
            self.alive_A, token_A = self.alive_A[kept_K], token_A[kept_K]
            self.mask_B_T, self.positions_B_T = self.mask_B_T[kept_K], self.positions_B_T[kept_K]
            self.cache.batch_select_indices(kept_K)
        self.ids_B_T = token_A.unsqueeze(1)
        self.mask_B_T = torch.cat([self.mask_B_T, self.mask_B_T.new_ones(len(token_A), 1)], dim=1)
        self.positions_B_T = self.positions_B_T[:, -1:] + 1
