"""Conversion of a GGUF model to a folder that transformers loads."""

from pathlib import Path


def convert_gguf(source: Path, output: Path) -> None:
    """Save a GGUF model and its tokenizer as safetensors, which load much faster.

    Raises:
        ImportError: if the package `gguf` is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    # transformers dequantizes the weights but refuses to save a model that was loaded from GGUF, so they are copied to
    # a new model.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
