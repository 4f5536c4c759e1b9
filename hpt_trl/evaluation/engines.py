"""What a model answers: token ids in, completions out, by transformers or by vLLM. No remote code is ever trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import find_adapter_config_file

from hpt_trl.data.sources import resolve_model

DTYPES = ("auto", "float32", "bfloat16", "float16")

# The ranks vLLM can be told to make room for.
_VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn (temperature 0: the likeliest), and how many at most."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """Text, its length in tokens with the end of sequence, and whether it ran into the longest length allowed."""

    text: str
    tokens: int
    cut: bool


@dataclass(frozen=True)
class Checkpoint:
    """Folder or Hub id of a model, and of the LoRA adapter on it, if there is one."""

    base: str
    adapter: str | None = None


class Engine(Protocol):
    """Anything that completes prompts."""

    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """One completion a prompt; the same prompts and seed give the same completions."""


def resolve_checkpoint(model: str, base_model: str | None = None) -> Checkpoint:
    """Tell an adapter from a whole model, and find the adapter's base.

    Args:
        model: folder, Hub id or "miniature"; of a model or of a LoRA adapter.
        base_model: where the adapter's base is, instead of where the adapter says.

    Raises:
        FileNotFoundError: if the model or its base is not there.
        ValueError: for a base of what is no adapter.
    """
    name = resolve_model(model)
    if find_adapter_config_file(name) is None:
        if base_model:
            raise ValueError(f"base_model was given, but {model!r} is a whole model and no adapter: leave it out.")
        return Checkpoint(name)
    from peft import PeftConfig

    base = base_model or PeftConfig.from_pretrained(name).base_model_name_or_path
    try:
        return Checkpoint(resolve_model(base), name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{model!r} is an adapter whose base is not here. Give it by base_model. {error}"
        ) from None


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer saved with the adapter if there is one, which may have a chat template the base has not."""
    own = checkpoint.adapter is not None and _has_tokenizer(checkpoint.adapter)
    return AutoTokenizer.from_pretrained(checkpoint.adapter if own else checkpoint.base)


def _has_tokenizer(name: str) -> bool:
    if Path(name).is_dir():
        return (Path(name) / "tokenizer_config.json").exists()
    try:
        return bool(hf_hub_download(name, "tokenizer_config.json"))
    except EntryNotFoundError:
        return False


def context_length(checkpoint: Checkpoint) -> int | None:
    """Longest prompt and completion together, in tokens; None if the model names no limit."""
    config = AutoConfig.from_pretrained(checkpoint.base).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def device() -> torch.device:
    """The accelerator, or the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def resolve_dtype(dtype: str) -> str:
    """ "auto" is bfloat16 on an accelerator, and float32 on a CPU."""
    if dtype != "auto":
        return dtype
    return "float32" if device().type == "cpu" else "bfloat16"


class TransformersEngine:
    """Batches by `generate`, padded on the left.

    Args:
        checkpoint: of a causal LM.
        tokenizer: its tokenizer.
        dtype: of `DTYPES`.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Any, dtype: str) -> None:
        self.tokenizer = tokenizer
        weights = getattr(torch, resolve_dtype(dtype))
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.base, dtype=weights)
        # As vLLM does: the checkpoint says which tokens end a completion, the evaluation says all else.
        ends = model.generation_config.eos_token_id
        self.end_ids = sorted({*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None})
        model.generation_config = GenerationConfig()
        if checkpoint.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, checkpoint.adapter)
        self.model = model.to(device()).eval()

    @torch.no_grad()
    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """One completion a prompt, from a generator seeded for these prompts alone."""
        at = self.model.device
        ids = [torch.tensor(prompt) for prompt in prompts]
        pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids[0]
        ids_B_T = pad_sequence(ids, batch_first=True, padding_value=pad_id, padding_side="left")
        mask_B_T = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        # What runs beside an evaluation, a training for instance, goes on as if there had been none.
        with torch.random.fork_rng(devices=[at] if at.type == "cuda" else []):
            torch.manual_seed(seed)
            outputs = self.model.generate(
                input_ids=ids_B_T.to(at),
                attention_mask=mask_B_T.to(at),
                max_new_tokens=sampling.max_new_tokens,
                do_sample=sampling.temperature > 0,
                eos_token_id=self.end_ids,
                pad_token_id=pad_id,
                **(drawn if sampling.temperature > 0 else {}),
            )
        return [self._completion(row_T) for row_T in outputs[:, ids_B_T.size(1) :].tolist()]

    def _completion(self, ids: list[int]) -> Completion:
        ends = [position for position, token in enumerate(ids) if token in self.end_ids]
        tokens = ends[0] + 1 if ends else len(ids)
        return Completion(self.tokenizer.decode(ids[:tokens], skip_special_tokens=True), tokens, cut=not ends)


class VLLMEngine:
    """Batches by vLLM, each completion with a seed of its own.

    Args:
        checkpoint: of a causal LM; an adapter is applied by vLLM as it generates.
        tokenizer: its tokenizer.
        dtype: of `DTYPES`.
        tensor_parallel_size: GPUs that share the model.
        gpu_memory_utilization: share of a GPU's memory that vLLM takes, in (0, 1].
        max_model_len: longest prompt and completion together, in tokens; None: the model's.

    Raises:
        ImportError: without vLLM.
        ValueError: for an adapter of a rank that vLLM has no room for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Any,
        dtype: str,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        max_model_len: int | None = None,
    ) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise ImportError(f"engine 'vllm' needs vLLM: pip install 'hpt-trl[vllm]'. ({error})") from error
        self.tokenizer = tokenizer
        self.lora, options = _vllm_lora(checkpoint.adapter)
        self.llm = LLM(
            model=checkpoint.base,
            dtype=resolve_dtype(dtype),
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len,
            # On a CPU vLLM compiles for minutes at every start.
            enforce_eager=device().type == "cpu",
            **options,
        )

    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """One completion a prompt; the seed of each follows from this one and its place."""
        from vllm import SamplingParams

        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        # vLLM knows the base's end of sequence; an adapter's tokenizer may have another.
        ends = [self.tokenizer.eos_token_id]
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [SamplingParams(seed=seed + place, stop_token_ids=ends, **drawn) for place in range(len(prompts))],
            use_tqdm=False,
            lora_request=self.lora,
        )
        return [self._completion(output.outputs[0]) for output in outputs]

    def _completion(self, answer: Any) -> Completion:
        text = self.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        return Completion(text, len(answer.token_ids), cut=answer.finish_reason == "length")


def _vllm_lora(adapter: str | None) -> tuple[Any, dict[str, Any]]:
    """vLLM's request for an adapter, and the engine options that make room for it."""
    if adapter is None:
        return None, {}
    from peft import PeftConfig
    from vllm.lora.request import LoRARequest

    rank = getattr(PeftConfig.from_pretrained(adapter), "r", 0)
    room = next((size for size in _VLLM_LORA_RANKS if size >= rank), None)
    if not rank or room is None:
        raise ValueError(f"vLLM takes LoRA adapters of rank 1 to {_VLLM_LORA_RANKS[-1]}, got {rank} in {adapter!r}.")
    return LoRARequest("adapter", 1, adapter), {"enable_lora": True, "max_lora_rank": room}
