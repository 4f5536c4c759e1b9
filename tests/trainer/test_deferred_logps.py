"""Old log-probabilities are computed when asked for, or later and of the rows that need them."""

import pytest
import torch

from hpt_trl.trainer.deferred_logps import DeferredLogps

IDS = torch.arange(12).view(3, 4)
MASK = torch.ones(3, 4, dtype=torch.long)
BATCH = {
    "prompt_ids": IDS[:, :2],
    "prompt_mask": MASK[:, :2],
    "completion_ids": IDS[:, 2:],
    "completion_mask": MASK[:, 2:],
}


def token_ids(model, ids, mask, length, temperature):
    """Log-probabilities that show which tokens they are of."""
    return ids[:, -length:].float() * temperature, None, None


def test_without_recording_it_is_trls_own_result():
    logps_B_T = DeferredLogps().call(token_ids, None, IDS, MASK, 2, temperature=1.0)[0]
    assert torch.equal(logps_B_T, IDS[:, 2:].float())


@pytest.mark.parametrize("is_needed_B", [None, torch.tensor([False, True, False])])
def test_recorded_it_is_computed_later_of_the_rows_needed(is_needed_B):
    deferred = DeferredLogps()
    with deferred.recording(enabled=True):
        zeros_B_T = deferred.call(token_ids, None, IDS, MASK, 2, temperature=0.5)[0]
    assert zeros_B_T.tolist() == [[0.0, 0.0]] * 3
    batch = BATCH | {"old_per_token_logps": zeros_B_T}
    deferred.compute_into(batch, is_needed_B)
    expected = IDS[:, 2:] * 0.5 if is_needed_B is None else torch.tensor([[0.0, 0.0], [3.0, 3.5], [0.0, 0.0]])
    assert torch.equal(batch["old_per_token_logps"], expected)


def test_what_was_not_deferred_is_left_alone():
    batch = dict(BATCH)
    deferred = DeferredLogps()
    with deferred.recording(enabled=False):
        deferred.call(token_ids, None, IDS, MASK, 2, temperature=1.0)
    deferred.compute_into(batch, None)
    assert "old_per_token_logps" not in batch


def test_a_trl_that_asks_twice_is_refused():
    deferred = DeferredLogps()
    with deferred.recording(enabled=True):
        deferred.call(token_ids, None, IDS, MASK, 2, temperature=1.0)
        with pytest.raises(RuntimeError, match="twice per generation"):
            deferred.call(token_ids, None, IDS, MASK, 2, temperature=1.0)
