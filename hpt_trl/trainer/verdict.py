"""The gate's verdict on one generation, from the trainer's last rewards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hpt_trl.algorithm.group_decision import Decision, Groups, decide
from hpt_trl.trainer.batches import RolloutBatch, apply_decision
from hpt_trl.trainer.collector import Demonstrations
from hpt_trl.trainer.demonstration_step import demonstration_rewards


class Verdict(NamedTuple):
    """What every prompt of one generation is trained on, and why."""

    groups: Groups
    demonstrations: Demonstrations
    decision: Decision

    def apply_to(self, trainer: Any, batch: RolloutBatch) -> None:
        """Write advantages and weights of this process's rollouts into their batch."""
        apply_decision(batch, self.decision, self.groups, trainer._rows, uses_trl_loss=trainer.algorithm.trl_rollouts)


def groups_of(trainer: Any) -> Groups:
    """The rewards of the last generation on all processes, in training or evaluation.

    Args:
        trainer: an HPTTrainer.
    """
    group_size = trainer.num_generations if trainer.model.training else trainer.num_generations_eval
    success_value = trainer.args.gate_success_value
    return Groups.of(trainer._rewards_B_F, trainer._gate_column, trainer.reward_weights, group_size, success_value)


def judge(trainer: Any, examples: Sequence[Mapping[str, Any]], batch: RolloutBatch) -> Verdict:
    """Ask the gate what every prompt of the last generation is trained on. Every process must call it.

    Args:
        trainer: an HPTTrainer.
        examples: B data rows.
        batch: B rollouts; demonstrations continue its prompts.
    """
    groups = groups_of(trainer)
    demonstrations = trainer._collector.collect(examples, batch, trainer._rows, enabled=trainer.uses_demonstrations)
    decision = decide(
        groups,
        demonstrations.is_available_P,
        trainer.algorithm,
        trainer.gate,
        trainer.state.global_step,
        reads_solve_rates=trainer.own_gate is not None or trainer.algorithm.prescribed_gate is None,
        scale_joint_groups=trainer.args.scale_rewards == "group",
        demonstration_reward_P=demonstration_rewards(trainer, examples, demonstrations),
    )
    return Verdict(groups, demonstrations, decision)
