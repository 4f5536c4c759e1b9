import torch

from hpt_trl.trainer.row_packing import (
    assign_rows,
    concatenate,
    cut_into,
    cut_to_budget,
    demonstration_rows,
    rollout_rows,
    select_rows,
)

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


def test_rows_are_dealt_longest_first_to_the_rank_with_the_fewest_tokens():
    # 9 to the empty rank, 7 to the one that has 5, 4 to that with 9 < 12, 3 to that with 12 < 13.
    assert assign_rows([3, 9, 4, 7], initial_tokens=[0, 5]) == [[1, 2], [3, 0]]
    # At most two rows each: the third longest may not go where two are.
    assert assign_rows([9, 1, 1, 1], initial_tokens=[0, 0], max_rows=2) == [[0, 3], [1, 2]]
    assert assign_rows([], initial_tokens=[0, 0]) == [[], []]


def test_runs_stay_within_the_budget_padding_included():
    # (2 + 6) = 8; with the second row 2 x (3 + 6) = 18 > 16, so it stands alone with the third: 2 x (3 + 4) = 14.
    assert cut_to_budget([(2, 6), (3, 4), (1, 2)], 16) == [range(1), range(1, 3)]
    assert cut_to_budget([(2, 60)], 16) == [range(1)]  # longer than the budget: alone
    assert cut_to_budget([], 16) == []


def test_cutting_into_runs_makes_the_largest_as_small_as_it_can_be():
    # One row of 10, then 2 x 5 and 2 x 5: nothing larger than 10 tokens in three runs.
    assert cut_into([(0, 10), (0, 5), (0, 5), (0, 5), (0, 5)], 3) == [range(1), range(1, 3), range(3, 5)]
    assert cut_into([(0, 1)], 4) == [range(1)]
    assert cut_into([], 4) == []


def test_micro_batches_are_put_together_again():
    joined = concatenate([select_rows(BATCH, torch.tensor([0])), select_rows(BATCH, torch.tensor([1, 2]))])
    assert joined.keys() == BATCH.keys()
    assert joined["num_images"] == [1, 2, 3]
    assert joined["tool_mask"] is None
    assert torch.equal(joined["completion_ids"], BATCH["completion_ids"])
    assert joined["num_items_in_batch"] == 6


def test_a_run_may_be_exactly_the_budget():
    # 2 x (3 + 4) = 14
    assert cut_to_budget([(3, 4), (1, 4)], 14) == [range(2)]
    assert cut_to_budget([(3, 4), (1, 4)], 13) == [range(1), range(1, 2)]


def test_masks_of_tool_outputs_are_cut_with_their_rows():
    tool_mask = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]])
    small = rollout_rows(BATCH | {"tool_mask": tool_mask}, torch.tensor([1, 0]), 2)
    assert small["tool_mask"].tolist() == [[1, 0], [1, 1]]
    assert small["tool_mask"].shape == small["completion_mask"].shape
