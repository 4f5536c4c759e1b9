"""What HPT adds to the metrics of an optimizer step."""

from collections.abc import Mapping, MutableMapping

import torch
from accelerate.utils import gather
from torch import Tensor

from hpt_trl.algorithm.gate import GateWeights

Metrics = MutableMapping[str, list[float]]
"""Values by name; TRL logs their mean over a logging interval."""


class StepLog:
    """
    Writes HPT's metrics, and adds up the loss of demonstrations until the optimizer step is complete.

    Args:
        device: of the trainer.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums_3 = torch.zeros(3, device=device)  # NLL in nats, trained tokens, demonstrations

    def state_dict(self) -> dict[str, Tensor]:
        """What has been added up, for a checkpoint."""
        return {"sums": self._sums_3}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it; an aborted step of the same trainer may have left something."""
        self._sums_3.copy_(state["sums"])

    def log_solve_rates(self, metrics: Metrics, solve_rate_P: Tensor) -> None:
        """Mean solve rate, and the fractions of prompts that every rollout or no rollout solved."""
        metrics["hpt/solve_rate"].append(solve_rate_P.nanmean().item())
        metrics["hpt/all_solved"].append((solve_rate_P == 1).float().mean().item())
        metrics["hpt/none_solved"].append((solve_rate_P == 0).float().mean().item())

    def log_generation(
        self, metrics: Metrics, weights: GateWeights, has_signal_B: Tensor, counts: Mapping[str, int]
    ) -> None:
        """Shares of prompts on demonstrations and of rollouts with signal, and counts of demonstrations.

        Every process must call it.
        """
        for name, count in counts.items():
            metrics[f"demonstrations/{name}"].append(float(count))
        on_demonstration_P = (weights.demonstration_P > 0) | (weights.off_policy_P > 0)
        metrics["hpt/demonstration_share"].append(on_demonstration_P.float().mean().item())
        metrics["hpt/signal_share"].append(gather(has_signal_B.float()).mean().item())

    def add_demonstrations(self, sums_3: Tensor) -> None:
        """Add NLL, tokens and number of the demonstrations of one forward pass."""
        self._sums_3 += sums_3

    def log_optimizer_step(self, metrics: Metrics) -> None:
        """Mean NLL in nats per token and mean length in trained tokens, of the optimizer step on all processes.

        Every process must call it.
        """
        nll, tokens, rows = gather(self._sums_3.unsqueeze(0)).sum(dim=0).tolist()
        self._sums_3.zero_()
        if rows:
            metrics["demonstrations/nll"].append(nll / tokens)
            metrics["demonstrations/length"].append(tokens / rows)
