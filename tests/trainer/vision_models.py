"""Tiny random models that read images, with processors made on the spot, and data for them.

The processors need no torchvision: PyPI's fails beside a build of torch for the CPU.
"""

from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3Processor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from hpt_trl.miniature.build import build_tokenizer

TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
}  # fmt: skip


class ImageOnlyProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's without its part for videos, which needs torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None):
        self.image_token, self.image_token_id = "<|image_pad|>", tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.video_token, self.video_token_id = "<|video_pad|>", tokenizer.convert_tokens_to_ids("<|video_pad|>")
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def _template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def _tokenizer(end: str, *others: str) -> PreTrainedTokenizerBase:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [end, *others]})
    tokenizer.eos_token, tokenizer.bos_token = end, "<eos>"
    return tokenizer


def _ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip


def _qwen2_5_vl() -> tuple[Any, ProcessorMixin]:
    special = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = _tokenizer("<|im_end|>", "<|im_start|>", *special)
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=512)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2_5_VLConfig(
        text_config=TEXT | _ids(tokenizer) | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "out_hidden_size": 16, "window_size": 16, "fullatt_block_indexes": [1],
            "initializer_range": 0.3,
        },
        **dict(zip(names, tokenizer.convert_tokens_to_ids(list(special)))),
    )  # fmt: skip
    return config, ImageOnlyProcessor(images, tokenizer, chat_template=_template("qwen2_5_vl"))


def _gemma3() -> tuple[Any, ProcessorMixin]:
    tokenizer = _tokenizer("<end_of_turn>", "<start_of_turn>", "<boi>", "<eoi>", "<image>")
    for name, token in {"boi": "<start_of_image>", "eoi": "<eoi>", "image": "<image>"}.items():
        tokenizer.add_special_tokens({"additional_special_tokens": [token]}, replace_extra_special_tokens=False)
        setattr(tokenizer, f"{name}_token", token)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    config = Gemma3Config(
        text_config=TEXT | _ids(tokenizer) | {"head_dim": 8, "query_pre_attn_scalar": 8},
        vision_config=VISION | {"patch_size": 4},
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_id=tokenizer.image_token_id,
    )
    return config, Gemma3Processor(images, tokenizer, chat_template=_template("gemma3"), image_seq_length=4)


def _llava_next() -> tuple[Any, ProcessorMixin]:
    tokenizer = _tokenizer("</s>", "<image>")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=[[16, 16], [16, 32]]
    )
    config = LlavaNextConfig(
        text_config=LlamaConfig(**(TEXT | _ids(tokenizer))),
        vision_config=CLIPVisionConfig(**VISION, patch_size=8, projection_dim=16, initializer_range=0.3),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[16, 16], [16, 32]],
        vision_feature_layer=-1,
    )
    processor = LlavaNextProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=_template("llava_next"),
    )  # fmt: skip
    return config, processor


FAMILIES = {"qwen2_5_vl": _qwen2_5_vl, "gemma3": _gemma3, "llava_next": _llava_next}


def build_vision_model(family: str, folder: Path) -> tuple[str, ProcessorMixin]:
    """Save a seeded random model that reads images.

    Args:
        family: a key of `FAMILIES`.
        folder: where to.

    Returns:
        The folder, and the processor of the model.
    """
    config, processor = FAMILIES[family]()
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder), processor


def picture(seed: int) -> Image.Image:
    """A colored square of 16 pixels, or a rectangle of 16 x 32."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (16, 32 if seed % 2 else 16, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def picture_rows(count: int = 4) -> Dataset:
    """Prompts with an image each, their demonstrations and solutions."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": "what" + "?" * (1 + row)}],
                "image": picture(row),
                "demonstration": "so " + "!" * row,
                "solution": str(row),
            }
            for row in range(count)
        ]
    )
