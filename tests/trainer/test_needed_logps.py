"""Old log-probabilities are computed of chosen rows only."""

import pytest
import torch

from hpt_trl.trainer.needed_logps import NeededLogps

IDS = torch.arange(12).view(3, 4)
MASK = torch.ones(3, 4, dtype=torch.long)
SILENT = torch.tensor([False, True, False])


def token_ids(model, ids, mask, length, temperature):
    """Log-probabilities that show which tokens they are of."""
    return ids[:, -length:].float() * temperature, None, None


def test_without_a_choice_it_is_trls_own_result():
    logps_B_T = NeededLogps().call(token_ids, None, IDS, MASK, 2, temperature=1.0)[0]
    assert torch.equal(logps_B_T, IDS[:, 2:].float())


@pytest.mark.parametrize("is_needed_B", [SILENT, torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)])
def test_only_chosen_rows_are_computed(is_needed_B):
    needed, seen = NeededLogps(), []

    def choose(batch):
        seen.append(batch)
        return is_needed_B

    with needed.choosing(choose):
        logps_B_T = needed.call(token_ids, None, IDS, MASK, 2, temperature=0.5)[0]
    (batch,) = seen
    assert torch.equal(batch["prompt_ids"], IDS[:, :2])
    assert torch.equal(batch["completion_ids"], IDS[:, 2:])
    assert torch.equal(logps_B_T[is_needed_B], IDS[is_needed_B, 2:] * 0.5)
    assert logps_B_T[~is_needed_B].isnan().all()
    # No NaN stays in the batch.
    batch = {"old_per_token_logps": logps_B_T}
    needed.finish(batch, is_needed_B, {})
    assert torch.equal(batch["old_per_token_logps"], (IDS[:, 2:] * 0.5).where(is_needed_B.unsqueeze(1), 0.0))


def test_a_trl_whose_advantages_are_others_is_refused():
    needed = NeededLogps()
    with needed.choosing(lambda batch: SILENT):
        logps_B_T = needed.call(token_ids, None, IDS, MASK, 2, temperature=1.0)[0]
    with pytest.raises(RuntimeError, match="not those that hpt_trl expects"):
        needed.finish({"old_per_token_logps": logps_B_T}, ~SILENT, {})
