"""Batches and forward passes of demonstrations alone: for SFT, for the warm-up, and to measure a held-out loss."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate.utils import gather
from torch import Tensor

from hpt_trl.algorithm.group_decision import Decision, total_rewards
from hpt_trl.algorithm.presets import ALGORITHMS
from hpt_trl.common.overriding import overriding
from hpt_trl.trainer.batches import DemonstrationForward, GatedBatch, RowIndex, batch_of_prompts
from hpt_trl.trainer.collector import Demonstrations
from hpt_trl.trainer.forwards import demonstration_pass
from hpt_trl.trainer.image_columns import columns_of_prompts, image_inputs, prompt_with_images
from hpt_trl.trainer.losses import DemonstrationLoss, demonstration_loss


def batch_of_demonstrations(
    trainer: Any, examples: Sequence[Mapping[str, Any]], rows: RowIndex
) -> tuple[GatedBatch, Demonstrations, Decision]:
    """A batch of prompts without completions, with the demonstrations of their groups. Every process must call it.

    Args:
        trainer: an HPTTrainer.
        examples: B data rows.
        rows: where these rows are among those of all processes.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts([prompt_with_images(example) for example in examples])
    batch = batch_of_prompts(prompt_ids, trainer._tokenizer.pad_token_id, trainer.accelerator.device)
    cast(dict[str, Any], batch).update(columns_of_prompts(images, fields, trainer.accelerator.device))
    demonstrations = trainer._collector.collect(examples, batch, rows)
    decision = Decision.demonstrations_only(demonstrations.is_available_P)
    return trainer._collector.attach(batch, demonstrations, decision, rows), demonstrations, decision


def demonstration_rewards(
    trainer: Any, examples: Sequence[Mapping[str, Any]], demonstrations: Demonstrations
) -> Tensor | None:
    """(P,) rewards of the tokenized demonstrations, NaN without one; None if they do not join their groups.

    Args:
        trainer: an HPTTrainer.
        examples: B data rows.
        demonstrations: of these rows.
    """
    if not trainer.algorithm.joint_group:
        return None
    ids = demonstrations.ids_of_rows(len(examples))
    texts = trainer._tokenizer.batch_decode(ids, skip_special_tokens=True)
    is_chat = not isinstance(examples[0]["prompt"], str)
    completions = [[{"role": "assistant", "content": text}] if is_chat else text for text in texts]
    prompts, of_rollouts_B_F = [example["prompt"] for example in examples], trainer._rewards_B_F
    # What reward functions log describes rollouts.
    with overriding(trainer, _pending_extra_logs=defaultdict(list), _pending_metrics=defaultdict(list)):
        rewards_B_F = trainer._calculate_rewards(examples, prompts, completions, ids)
    trainer._rewards_B_F = of_rollouts_B_F
    is_there_B = torch.tensor([bool(row) for row in ids], device=rewards_B_F.device)
    rewards_B = total_rewards(rewards_B_F, trainer.reward_weights).masked_fill(~gather(is_there_B), torch.nan)
    return rewards_B[:: trainer.num_generations]


def demonstration_losses(trainer: Any, model: Any, batch: DemonstrationForward) -> DemonstrationLoss:
    """Losses of one forward pass of demonstrations, before they are scaled to the optimizer step.

    Args:
        trainer: an HPTTrainer.
        model: the policy, as the forward pass needs it.
        batch: R demonstrations; those of the warm-up are trained on by plain SFT.
    """
    with trainer.accelerator.autocast():
        outputs = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=batch["labels"],
            fused_lm_head=True,
            demonstration=True,
            **image_inputs(batch),
        )
    is_warmup = "sft_weight" in batch
    # Prompt tuning and p-tuning put virtual tokens before the sequence.
    width = batch["labels"].size(1) - 1
    return demonstration_loss(
        outputs.log_probs[:, -width:],
        outputs.entropy[:, -width:],
        batch,
        ALGORITHMS["sft"] if is_warmup else trainer.algorithm,
        sft_weight=batch["sft_weight"] if is_warmup else trainer.args.sft_weight,
        per_token=trainer.args.sft_normalization == "token",
        loss_type=trainer.loss_type,
        max_length=trainer.max_completion_length,
    )


@torch.no_grad()
def held_out_nll(trainer: Any, examples: Sequence[Mapping[str, Any]]) -> float:
    """Mean NLL of demonstrations, in nats per token, over all processes. Every process must call it.

    Args:
        trainer: an HPTTrainer.
        examples: data rows, the same on every process.
    """
    rows, size = replace(trainer._rows, group_size=1), trainer.args.per_device_train_batch_size
    share = math.ceil(len(examples) / rows.processes)
    # Every process makes the same number of forward passes: the last ones repeat a row, without its demonstration.
    padding = [dict(examples[0]) | {"demonstration": None}] * (share * rows.processes - len(examples))
    own = [*examples, *padding][rows.process * share : (rows.process + 1) * share]
    sums_3 = torch.zeros(3, device=trainer.accelerator.device)
    trainer.model.eval()
    for start in range(0, share, size):
        batch = batch_of_demonstrations(trainer, own[start : start + size], rows)[0]
        sums_3 += demonstration_losses(trainer, trainer.model, demonstration_pass(batch)).sums_3
    trainer.model.train()
    nll, tokens, _ = gather(sums_3.unsqueeze(0)).sum(dim=0).tolist()
    return nll / max(tokens, 1.0)
