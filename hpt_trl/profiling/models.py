"""The models of a benchmark: of any config, with random weights, because the cost of a step does not depend on them."""

from typing import Any

import torch
from peft import PeftConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.utils.peft_utils import find_adapter_config_file


def save_random_model(name: str, folder: str, dtype: str, positions: int) -> int:
    """Save a model with the architecture and the tokenizer of another one, whose weights are not loaded.

    Of a model with images it is the language model, of an adapter the base model, of a quantized model the same
    without quantization.

    Args:
        name: a folder or a Hub id.
        folder: where the model is saved.
        dtype: dtype of the parameters.
        positions: tokens of context that the model must have room for.

    Returns:
        Its number of parameters.

    Raises:
        ValueError: if it is not a causal language model.
    """
    if find_adapter_config_file(name):
        name = str(PeftConfig.from_pretrained(name).base_model_name_or_path)
    config = AutoConfig.from_pretrained(name)
    if config.is_encoder_decoder:
        raise ValueError(f"{name!r} is an encoder-decoder model ({config.model_type}). Give a causal language model.")
    config = config.get_text_config()
    if getattr(config, "quantization_config", None):
        del config.quantization_config
    if getattr(config, "max_position_embeddings", None):
        config.max_position_embeddings = max(config.max_position_embeddings, positions)
    return _save(config, AutoTokenizer.from_pretrained(name), folder, dtype)


def save_model_of_31m_parameters(tokenizer_of: str, folder: str, dtype: str) -> int:
    """Save a Qwen2 in which fixed overheads of a step do not dominate, with the tokenizer of another model."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=9,
        num_attention_heads=8,
        num_key_value_heads=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _save(config, tokenizer, folder, dtype)


def _save(config: Any, tokenizer: Any, folder: str, dtype: str) -> int:
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()
