"""Columns of TRL's batch that belong to images. Most run over all images of a batch, and not over its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import pad, split_pixel_values_by_grid, unsplit_pixel_values_by_grid

# (B, P + T), of prompts and completions.
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
_PIXELS = (
    "pixel_values",
    "pixel_attention_mask",
    "image_grid_thw",
    "image_position_ids",
    "image_sizes",
    "spatial_shapes",
)
_COUNTS = ("num_images", "num_tiles")
IMAGE_COLUMNS = (*TOKEN_TYPES, *_PIXELS, *_COUNTS)


def has_images(batch: Mapping[str, Any]) -> bool:
    """Whether a batch has images."""
    return batch.get("pixel_values") is not None


def images_by_row(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch whose images are lists with one entry per row."""
    return batch if isinstance(batch.get("pixel_values"), list) else split_pixel_values_by_grid(dict(batch))


def joined_images(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `images_by_row`. Rows without images keep none of their columns: models reject empty ones."""
    if isinstance(batch.get("pixel_values"), list) and not sum(batch["num_images"]):
        return {name: column for name, column in batch.items() if name not in (*_PIXELS, *_COUNTS)}
    return unsplit_pixel_values_by_grid(dict(batch))


def image_inputs(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The columns that are arguments of a model."""
    return {name: batch[name] for name in (*TOKEN_TYPES, *_PIXELS) if batch.get(name) is not None}


def prompt_with_images(example: Mapping[str, Any]) -> Any:
    """The prompt of a data row, as TRL completes it by the images of the columns `images` or `image`."""
    images = example.get("images") or ([] if example.get("image") is None else [example["image"]])
    return prepare_multimodal_messages(example["prompt"], images=images) if images else example["prompt"]


def check_images(example: Mapping[str, Any], count: int) -> None:
    """Reject a rollout with other images than those of its prompt, for a demonstration that continues the prompt.

    Args:
        example: the data row.
        count: images of the rollout.

    Raises:
        ValueError: if a tool or an environment has added some.
    """
    messages = [] if isinstance(example.get("prompt", ""), str) else prompt_with_images(example)
    parts = [part for message in messages if isinstance(message.get("content"), list) for part in message["content"]]
    own = sum(part.get("type") == "image" for part in parts)
    if own != count:
        raise ValueError(
            f"the prompt has {own} images and its rollout {count}: images of a tool or an environment cannot be "
            "part of a demonstration"
        )


def columns_of_prompts(
    images: Sequence[Sequence[Any] | None] | None, fields: Mapping[str, Any], device: torch.device
) -> dict[str, Any]:
    """Columns of images in TRL's form, for B prompts whose completion is one token.

    Args:
        images: of each prompt, as TRL's `_tokenize_prompts` returns them.
        fields: what the processor made of them, likewise.
        device: of the result.

    Raises:
        ValueError: for a model that cuts an image into tiles whose number only TRL's own batches know.
    """
    if images is None:
        return {}
    columns: dict[str, Any] = {}
    for name, values in fields.items():
        if name in TOKEN_TYPES:
            padded = pad([torch.tensor([*row, 0]) for row in values], 0, padding_side="left")
            columns[name] = padded.to(device)
        else:
            columns[name] = (values if isinstance(values, Tensor) else torch.tensor(np.array(values))).to(device)
    columns["num_images"] = [len(row or []) for row in images]
    pixels = columns["pixel_values"]
    if "spatial_shapes" in columns or (pixels.ndim == 4 and len(pixels) != sum(columns["num_images"])):
        raise ValueError(
            "This model cuts images into tiles, which SFT alone does not support: set sft_warmup_steps to 0, and use "
            "an algorithm with rollouts."
        )
    return columns
