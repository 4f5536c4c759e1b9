"""Set the paper's longer context in the folder of a downloaded Qwen2.5-Math model.

    hf download Qwen/Qwen2.5-Math-7B --local-dir models/qwen2.5_math_7b_16k
    python "$(hpt-trl configs paper/longer_context.py)" models/qwen2.5_math_7b_16k

vLLM reads a model's context length and RoPE parameters from its folder; `model_init_kwargs` changes them only for the
trainer.
"""

import sys

from transformers import AutoConfig

# The published context of 4,096 tokens is too short for completions of 8,192 tokens. Source: reference code of arXiv
# 2509.04419.
LONG_CONTEXT = {"max_position_embeddings": 16384, "rope_parameters": {"rope_type": "default", "rope_theta": 40000.0}}


def extend_context(folder: str) -> None:
    """Set the longer context in `config.json` of a model's folder."""
    AutoConfig.from_pretrained(folder, **LONG_CONTEXT).save_pretrained(folder)


if __name__ == "__main__":
    extend_context(sys.argv[1])
