"""Rows of one process among those of all, without starting several."""

import torch

from hpt_trl.trainer.batches import RowIndex, batch_of_prompts, is_forward_passes, is_gated


def test_a_group_that_spans_two_processes_begins_on_one():
    # 12 rows in groups of 4, 6 on each process: the second group is rows 4 to 7.
    first, second = (RowIndex(process, processes=2, group_size=4) for process in (0, 1))
    assert (first.first_rows(6), second.first_rows(6)) == ([0, 4], [2])
    assert first.group_of_row(6).tolist() == [0, 0, 0, 0, 1, 1]
    assert second.group_of_row(6).tolist() == [1, 1, 2, 2, 2, 2]
    values_B = torch.arange(12)
    assert torch.equal(torch.cat([first.own_rows(values_B), second.own_rows(values_B)]), values_B)


def test_a_batch_of_prompts_has_no_completions():
    batch = batch_of_prompts([[5, 6], [7]], pad_id=0, device=torch.device("cpu"))
    assert batch["prompt_ids"].tolist() == [[5, 6], [0, 7]]
    assert batch["prompt_mask"].tolist() == [[1, 1], [0, 1]]
    assert batch["completion_mask"].tolist() == [[0], [0]]
    assert batch["advantages"].tolist() == [0.0, 0.0]
    assert not is_gated(batch)
    assert not is_forward_passes(batch)
