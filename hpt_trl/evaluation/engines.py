"""Engines that generate completions from token ids, with transformers or vLLM. Remote code is never trusted."""

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

from hpt_trl.common.models import is_sampling_error, not_finite, reporting_load_errors
from hpt_trl.data.sources import resolve_model

DTYPES = ("auto", "float32", "bfloat16", "float16")

# The values that vLLM accepts for `max_lora_rank`.
_VLLM_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters: temperature (0: greedy decoding), top-p, and the maximum number of new tokens."""

    temperature: float
    top_p: float
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """A text, its length in tokens including the end-of-sequence token, and whether it was truncated at the maximum.

    `logp` is its log-probability at temperature 1, if the engine was asked for it.
    """

    text: str
    tokens: int
    cut: bool
    logp: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Folder or Hub id of a model, and of its LoRA adapter, if any."""

    base: str
    adapter: str | None = None


class Engine(Protocol):
    """Anything that completes prompts."""

    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """Generate one completion per prompt; the same prompts and seed give the same completions."""


def resolve_checkpoint(model: str, base_model: str | None = None) -> Checkpoint:
    """Determine whether a checkpoint is a full model or an adapter, and find the adapter's base model.

    Args:
        model: folder or Hub id of a model or LoRA adapter, or "miniature".
        base_model: base model of the adapter, overriding what the adapter says.

    Raises:
        FileNotFoundError: if the model or its base model does not exist.
        ValueError: if a base model is given for a full model.
    """
    name = resolve_model(model)
    if find_adapter_config_file(name) is None:
        if base_model:
            raise ValueError(f"base_model was given, but {model!r} is a full model, not an adapter: leave it out.")
        return Checkpoint(name)
    from peft import PeftConfig

    base = base_model or PeftConfig.from_pretrained(name).base_model_name_or_path
    try:
        return Checkpoint(resolve_model(base), name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The base model of the adapter {model!r} was not found. Pass it as base_model. {error}"
        ) from None


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Load the adapter's tokenizer, if it has one, since it may have a chat template; else that of the base model."""
    adapter = checkpoint.adapter
    name = adapter if adapter is not None and _has_tokenizer(adapter) else checkpoint.base
    with reporting_load_errors(name):
        return AutoTokenizer.from_pretrained(name)


def _has_tokenizer(name: str) -> bool:
    if Path(name).is_dir():
        return (Path(name) / "tokenizer_config.json").exists()
    try:
        return bool(hf_hub_download(name, "tokenizer_config.json"))
    except EntryNotFoundError:
        return False


def context_length(checkpoint: Checkpoint) -> int | None:
    """Maximum length of prompt and completion together, in tokens; None if the model sets no limit."""
    config = AutoConfig.from_pretrained(checkpoint.base).get_text_config()
    return getattr(config, "max_position_embeddings", None)


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def resolve_dtype(dtype: str) -> str:
    """Resolve "auto" to bfloat16 on an accelerator and float32 on a CPU."""
    if dtype != "auto":
        return dtype
    return "float32" if device().type == "cpu" else "bfloat16"


class TransformersEngine:
    """Generates with `model.generate`, on batches padded on the left.

    Args:
        checkpoint: checkpoint of a causal LM.
        tokenizer: its tokenizer.
        dtype: one of `DTYPES`.
        with_logps: whether to compute the log-probability of every completion, with one more forward pass.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Any, dtype: str, with_logps: bool = False) -> None:
        self.tokenizer = tokenizer
        self.with_logps = with_logps
        weights = getattr(torch, resolve_dtype(dtype))
        with reporting_load_errors(checkpoint.base):
            model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.base, dtype=weights)
        # As in vLLM: the checkpoint defines which tokens end a completion, the evaluation defines everything else.
        ends = model.generation_config.eos_token_id
        self.end_ids = sorted({*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None})
        model.generation_config = GenerationConfig()
        if checkpoint.adapter:
            from peft import PeftModel

            with reporting_load_errors(checkpoint.adapter):
                model = PeftModel.from_pretrained(model, checkpoint.adapter)
        name = not_finite(model)
        if name is not None:
            raise ValueError(
                f"The model {checkpoint.adapter or checkpoint.base!r} cannot generate: its parameter {name!r} is not "
                "finite. Evaluate an earlier checkpoint, or download the model again."
            )
        self.model = model.to(device()).eval()

    @torch.no_grad()
    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """Generate one completion per prompt, with a random state seeded for this batch only."""
        model_device = self.model.device
        ids = [torch.tensor(prompt) for prompt in prompts]
        pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_ids[0]
        ids_B_T = pad_sequence(ids, batch_first=True, padding_value=pad_id, padding_side="left")
        mask_B_T = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left")
        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        # The evaluation does not affect the random state of other code, such as a training loop.
        with torch.random.fork_rng(devices=[model_device] if model_device.type == "cuda" else []):
            torch.manual_seed(seed)
            try:
                outputs = self.model.generate(
                    input_ids=ids_B_T.to(model_device),
                    attention_mask=mask_B_T.to(model_device),
                    max_new_tokens=sampling.max_new_tokens,
                    do_sample=sampling.temperature > 0,
                    eos_token_id=self.end_ids,
                    pad_token_id=pad_id,
                    **(options if sampling.temperature > 0 else {}),
                )
            except RuntimeError as error:
                if not is_sampling_error(error):
                    raise
                raise ValueError(
                    f"The model gives probabilities that are not finite ({str(error).splitlines()[0]}): its training "
                    "has diverged, or its activations overflow in this dtype. Evaluate an earlier checkpoint, or use "
                    "dtype float32."
                ) from error
        rows = outputs[:, ids_B_T.size(1) :].tolist()
        return [self._completion(prompt, row_T) for prompt, row_T in zip(prompts, rows)]

    def _completion(self, prompt: list[int], ids: list[int]) -> Completion:
        ends = [position for position, token in enumerate(ids) if token in self.end_ids]
        ids = ids[: ends[0] + 1] if ends else ids
        logp = self._logp(prompt, ids) if self.with_logps else None
        return Completion(self.tokenizer.decode(ids, skip_special_tokens=True), len(ids), not ends, logp)

    def _logp(self, prompt: list[int], ids: list[int]) -> float:
        inputs_1_T = torch.tensor([[*prompt, *ids]], device=self.model.device)
        # One row at a time: the logits of a batch would not fit into memory for long completions.
        logits_T_V = self.model(inputs_1_T, logits_to_keep=len(ids) + 1).logits[0, :-1]
        logps_T_V = logits_T_V.float().log_softmax(dim=-1)
        return logps_T_V.gather(1, inputs_1_T[0, -len(ids) :, None]).sum().item()


class VLLMEngine:
    """Generates with vLLM, with a separate seed for each completion.

    Args:
        checkpoint: checkpoint of a causal LM; vLLM applies an adapter while it generates.
        tokenizer: its tokenizer.
        dtype: one of `DTYPES`.
        tensor_parallel_size: number of GPUs to split the model over.
        gpu_memory_utilization: fraction of the GPU memory that vLLM uses, in (0, 1].
        max_model_len: maximum length of prompt and completion together, in tokens; None: that of the model.

    Raises:
        ImportError: if vLLM is not installed.
        ValueError: if vLLM does not support the rank of the adapter.
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
            # On a CPU, vLLM would otherwise compile for minutes at every start.
            enforce_eager=device().type == "cpu",
            **options,
        )

    def complete(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int) -> list[Completion]:
        """Generate one completion per prompt, each with the seed `seed` plus its index."""
        from vllm import SamplingParams

        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        # vLLM knows the end-of-sequence token of the base model; the adapter's tokenizer may have a different one.
        end_ids = [self.tokenizer.eos_token_id]
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [SamplingParams(seed=seed + index, stop_token_ids=end_ids, **options) for index in range(len(prompts))],
            use_tqdm=False,
            lora_request=self.lora,
        )
        return [self._completion(output.outputs[0]) for output in outputs]

    def _completion(self, output: Any) -> Completion:
        text = self.tokenizer.decode(output.token_ids, skip_special_tokens=True)
        return Completion(text, len(output.token_ids), cut=output.finish_reason == "length")


def _vllm_lora(adapter: str | None) -> tuple[Any, dict[str, Any]]:
    """vLLM's request for an adapter, and the engine options that it needs."""
    if adapter is None:
        return None, {}
    from peft import PeftConfig
    from vllm.lora.request import LoRARequest

    rank = getattr(PeftConfig.from_pretrained(adapter), "r", 0)
    max_rank = next((size for size in _VLLM_LORA_RANKS if size >= rank), None)
    if not rank or max_rank is None:
        raise ValueError(
            f"vLLM supports LoRA adapters of rank 1 to {_VLLM_LORA_RANKS[-1]}, got rank {rank} in {adapter!r}."
        )
    return LoRARequest("adapter", 1, adapter), {"enable_lora": True, "max_lora_rank": max_rank}
