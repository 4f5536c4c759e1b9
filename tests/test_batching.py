import torch

from hpt_trl.batching import demonstration_rows, rollout_rows, select_rows

BATCH = {
    "prompt_ids": torch.tensor([[0, 0, 11], [0, 12, 13], [14, 15, 16]]),
    "prompt_mask": torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]]),
    "completion_ids": torch.tensor([[21, 0, 0], [22, 23, 0], [24, 25, 26]]),
    "completion_mask": torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    "advantages": torch.tensor([0.5, -0.5, 0.0]),
    "importance_sampling_ratio": torch.tensor([[1.0], [2.0], [3.0]]),
    "old_per_token_logps": torch.arange(9.0).view(3, 3),
    "num_items_in_batch": torch.tensor(6),
    "num_images": [1, 2, 3],
    "tool_mask": None,
    "demonstration_ids": torch.tensor([[31, 32, 9, 9], [9, 9, 9, 9], [33, 34, 35, 9]]),
    "demonstration_mask": torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]),
}


def test_select_rows_takes_rows_of_everything_but_scalars():
    small = select_rows(BATCH, torch.tensor([2, 0]))
    assert small["advantages"].tolist() == [0.0, 0.5]
    assert small["num_images"] == [3, 1]
    assert small["num_items_in_batch"] == 6
    assert small["tool_mask"] is None


def test_rollout_rows_are_cut_to_the_longest_with_signal():
    small = rollout_rows(BATCH, torch.tensor([0, 1]), 2)
    assert small["prompt_ids"].tolist() == [[0, 11], [12, 13]]
    assert small["completion_ids"].tolist() == [[21, 0], [22, 23]]
    assert small["old_per_token_logps"].tolist() == [[0, 1], [3, 4]]
    assert small["importance_sampling_ratio"].tolist() == [[1], [2]]  # holds for the whole row


def test_rollout_rows_are_filled_up_with_rows_nothing_can_be_learned_from():
    small = rollout_rows(BATCH, torch.tensor([1]), 3)
    assert small["completion_mask"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert small["completion_ids"].shape == (3, 2)
    assert BATCH["completion_mask"].sum() == 6  # the caller's tensors are untouched


def test_a_rank_without_signal_passes_single_tokens():
    small = rollout_rows(BATCH, torch.tensor([], dtype=torch.long), 2)
    assert small["prompt_ids"].tolist() == [[11], [11]]
    assert small["completion_ids"].shape == (2, 1)
    assert small["completion_mask"].sum() == 0
    assert small["prompt_mask"].tolist() == [[1], [1]]  # never a row without anything to attend to


def test_demonstration_rows_continue_their_own_prompt_from_position_0():
    rows = demonstration_rows(BATCH, torch.tensor([0, 2]))
    assert rows["input_ids"].tolist() == [[11, 31, 32, 0, 0, 0], [14, 15, 16, 33, 34, 35]]
    assert rows["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    # Token 33 is context, not trained on.
    assert rows["labels"].tolist() == [[-100, 31, 32, -100, -100, -100], [-100, -100, -100, -100, 34, 35]]


def test_no_demonstration_is_one_row_of_two_tokens_without_a_label():
    rows = demonstration_rows(BATCH, torch.tensor([], dtype=torch.long))
    assert rows["input_ids"].tolist() == [[11, 11]]
    assert rows["attention_mask"].tolist() == [[1, 1]]
    assert (rows["labels"] == -100).all()
