import pytest
import torch

from hpt_trl.trainer.image_columns import check_images, image_inputs, images_by_row, joined_images
from hpt_trl.trainer.row_packing import demonstration_rows, rollout_rows

# Three prompts with one, no and two images, whose places are the tokens 8. Each image has two patches.
BATCH = {
    "prompt_ids": torch.tensor([[0, 0, 8, 11], [0, 0, 0, 12], [8, 8, 13, 14]]),
    "prompt_mask": torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]),
    "completion_ids": torch.tensor([[21, 0], [22, 23], [24, 0]]),
    "completion_mask": torch.tensor([[1, 0], [1, 1], [1, 0]]),
    "mm_token_type_ids": torch.tensor([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]),
    "pixel_values": torch.arange(6.0).view(6, 1),
    "image_grid_thw": torch.tensor([[1, 1, 2], [1, 2, 1], [1, 1, 2]]),
    "num_images": [1, 0, 2],
    "demonstration_ids": torch.tensor([[31, 32, 33], [34, 0, 0], [35, 36, 0]]),
    "demonstration_mask": torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]),
}


def test_images_by_row_and_back():
    by_row = images_by_row(BATCH)
    assert [pixels.flatten().tolist() for pixels in by_row["pixel_values"]] == [[0, 1], [], [2, 3, 4, 5]]
    assert images_by_row(by_row) is by_row
    joined = joined_images(by_row)
    assert torch.equal(joined["pixel_values"], BATCH["pixel_values"])
    assert torch.equal(joined["image_grid_thw"], BATCH["image_grid_thw"])


def test_rollouts_keep_their_images_and_the_types_of_their_tokens():
    small = rollout_rows(BATCH, torch.tensor([2, 0]), 2)
    assert small["pixel_values"].flatten().tolist() == [2, 3, 4, 5, 0, 1]
    assert small["image_grid_thw"].tolist() == [[1, 2, 1], [1, 1, 2], [1, 1, 2]]
    assert small["num_images"] == [2, 1]
    # Four tokens of the prompt and one of the completion.
    assert small["mm_token_type_ids"].tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]]


def test_rows_without_images_have_no_columns_of_images():
    small = rollout_rows(BATCH, torch.tensor([1]), 1)
    assert image_inputs(small).keys() == {"mm_token_type_ids"}
    assert "num_images" not in small
    assert small["mm_token_type_ids"].tolist() == [[0, 0, 0]]


def test_a_rank_without_signal_passes_a_prompt_with_its_images():
    small = rollout_rows(BATCH, torch.tensor([], dtype=torch.long), 2)
    assert small["prompt_ids"].tolist() == [[8, 11], [8, 11]]
    assert small["pixel_values"].flatten().tolist() == [0, 1, 0, 1]
    assert small["completion_mask"].tolist() == [[0], [0]]


def test_demonstrations_continue_their_prompts_with_images():
    rows = demonstration_rows(BATCH, torch.tensor([0, 2]))
    assert rows["input_ids"].tolist() == [[8, 11, 31, 32, 33, 0], [8, 8, 13, 14, 35, 36]]
    assert rows["mm_token_type_ids"].tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert [pixels.flatten().tolist() for pixels in rows["pixel_values"]] == [[0, 1], [2, 3, 4, 5]]


def test_a_prompt_without_demonstration_trains_nothing():
    masked = BATCH | {"demonstration_mask": torch.zeros(3, 3, dtype=torch.long)}
    rows = demonstration_rows(masked, torch.tensor([0]))
    assert rows["input_ids"].tolist() == [[8, 11]]
    assert rows["labels"].tolist() == [[-100, -100]]


@pytest.mark.parametrize("columns", [{"image": "x"}, {"images": ["x"]}])
def test_images_that_the_prompt_does_not_have_are_noticed(columns):
    prompt = [{"role": "user", "content": "what?"}]
    check_images({"prompt": prompt, **columns}, 1)
    check_images({"prompt": prompt}, 0)
    check_images({"prompt": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]}, 1)
    with pytest.raises(ValueError, match="has 1 images and its rollout 2"):
        check_images({"prompt": prompt, **columns}, 2)
