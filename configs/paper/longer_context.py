"""Write the paper's longer context into the folder of a downloaded Qwen2.5-Math model.

    hf download Qwen/Qwen2.5-Math-7B --local-dir models/qwen2.5_math_7b_16k
    python configs/paper/longer_context.py models/qwen2.5_math_7b_16k

vLLM reads a model's context and rope from its folder alone: `model_init_kwargs` would change them for the trainer only.
"""

import sys

from transformers import AutoConfig

# Its published context of 4,096 tokens is too short for 8,192 of answer. Source: arXiv 2509.04419, the reference code.
LONGER = {"max_position_embeddings": 16384, "rope_parameters": {"rope_type": "default", "rope_theta": 40000.0}}


def lengthen(folder: str) -> None:
    """Change `config.json` in a model's folder."""
    AutoConfig.from_pretrained(folder, **LONGER).save_pretrained(folder)


if __name__ == "__main__":
    lengthen(sys.argv[1])
