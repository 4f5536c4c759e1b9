"""HPTTrainer: GRPOTrainer in which every prompt decides whether it learns from its rollouts or a demonstration.

The seam with TRL is four overrides, each of which calls `super()` first: `_calculate_rewards` keeps the rewards,
`_generate_and_score_completions` judges the groups and attaches the demonstrations, `compute_loss` adds their loss, and
`_get_grad_norm` guards the optimizer step. A little over 300 lines: the seam is read best in one piece.
"""

import math
import textwrap
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather, gather_object, is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import get_config_model_id, pad

from hpt_trl.batching import Batch, demonstration_rows, rollout_rows
from hpt_trl.checks import check_arguments, check_dataset, check_launch, check_tokenizer, gate_reward_index
from hpt_trl.config import HPTConfig
from hpt_trl.demonstrations import DemonstrationTokenizer, DemonstrationTokens, cut, is_missing, prompt_identifier
from hpt_trl.estimator import OFF_POLICY, SFT, Tokens, demonstration_advantages, token_means, token_sums
from hpt_trl.gate import Gate, GateWeights, gate_weights, is_shut, solve_rates
from hpt_trl.history import GateHistory, GateHistoryCallback
from hpt_trl.trl_hooks import acts_without_advantage, add_demonstration_head, passed_share

logger = get_logger(__name__)


class HPTTrainer(GRPOTrainer):
    """
    Trainer for Hybrid Post-Training (HPT), "Towards a Unified View of Large Language Model Post-Training"
    (https://huggingface.co/papers/2509.04419).

    Everything that [`~trl.GRPOTrainer`] takes, plus a `demonstration` column in `train_dataset` and:

    Args:
        args ([`HPTConfig`], *optional*):
            Configuration. If `None`, a default one is used.
        gate (`Callable`, *optional*):
            Your own gate, `(solve_rate_P, step) -> (rollouts_P, demonstration_P)`: (P,) float tensors of the solve rate
            in [0, 1] and of the weights. Replaces the gate that `args` names. It must give the same answer on every
            process.

    A demonstration is a text, one assistant message, or a list of messages. A prompt without one (None or empty) learns
    from its rollouts.
    """

    args: HPTConfig
    model: Any

    _tag_names = ["trl", "hpt"]
    _name = "HPT"
    _paper = {
        "title": "Towards a Unified View of Large Language Model Post-Training",
        "id": "2509.04419",
        # docstyle-ignore
        "citation": textwrap.dedent("""\
            @article{lv2025unified,
                title        = {{Towards a Unified View of Large Language Model Post-Training}},
                author       = {Xingtai Lv and Yuxin Zuo and Youbang Sun and Hongyi Liu and Yuntian Wei and Zhekai Chen and Xuekai Zhu and Kaiyan Zhang and Bingning Wang and Ning Ding and Bowen Zhou},
                year         = 2025,
                eprint       = {arXiv:2509.04419},
            }"""),  # noqa: E501
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: HPTConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        *positional: Any,
        gate: Gate | None = None,
        **keywords: Any,
    ):
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = HPTConfig(f"{name.split('/')[-1]}-HPT")
        check_arguments(args, gate)
        if train_dataset is not None:
            check_dataset(train_dataset, args, needs_prompt=keywords.get("environment_factory") is None)
        super().__init__(model, reward_funcs, args, train_dataset, *positional, **keywords)
        check_launch(args, self.accelerator)
        check_tokenizer(self._tokenizer, train_dataset)
        self.gate = gate or args.build_gate()
        self._gate_is_off = gate is None and args.gate == "off"
        self._gate_reward_index = gate_reward_index(self.reward_func_names, args.gate_reward, self._gate_is_off)
        self._tokenize_demonstration = DemonstrationTokenizer(
            self._tokenizer,
            self.eos_token_ids,
            {"chat_template": self.chat_template, "tools": self.tools or None} | cast(dict, self.chat_template_kwargs),
        )
        self._skipped_steps = 0
        self._demonstration_sums = torch.zeros(3, device=self.accelerator.device)  # NLL, tokens, rows
        base_model = self.model.get_base_model() if is_peft_model(self.model) else self.model
        add_demonstration_head(base_model, args.cast_lm_head_to_fp32)
        self.gate_history = GateHistory()
        self.add_callback(GateHistoryCallback(self.gate_history))
        self._rewards_B_F: Tensor | None = None

    # 1. Keep the rewards.

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._rewards_B_F = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self._rewards_B_F

    # 2. Judge the groups. TRL shuffles rows after this: here, and only here, groups are whole.

    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        if self._gate_reward_index is None:
            return batch
        is_training = self.model.training
        group_size = self.num_generations if is_training else self.num_generations_eval
        rewards_P_G = self._rewards_B_F[:, self._gate_reward_index].view(-1, group_size)
        solve_rate_P = solve_rates(rewards_P_G, self.args.gate_success_value)
        self._log_solve_rates(solve_rate_P)
        if not is_training:
            return batch

        # Of this process's rows, those that open a group: a group may span processes, its first row is on one of them.
        offset = self.accelerator.process_index * len(inputs)
        first_rows = [row for row in range(len(inputs)) if (offset + row) % group_size == 0]
        tokens = {} if self._gate_is_off else self._demonstrations(inputs, batch, first_rows)
        has_demonstration_B = torch.zeros(len(inputs), device=self.accelerator.device)
        has_demonstration_B[list(tokens)] = 1.0
        has_demonstration_P = gather(has_demonstration_B)[::group_size] > 0
        weights = gate_weights(self.gate, solve_rate_P, has_demonstration_P, self.state.global_step)
        self._note_history([inputs[row] for row in first_rows], solve_rate_P, weights)

        prompt_of_row_B = torch.arange(offset, offset + len(inputs), device=self.accelerator.device) // group_size
        batch["advantages"] = batch["advantages"] * weights.rollouts_P[prompt_of_row_B]
        self._log_gate(weights, batch["advantages"])
        if not is_shut(weights):
            scored_P = (~rewards_P_G.isnan()).sum(dim=1)
            advantage_P = demonstration_advantages(solve_rate_P.nan_to_num() * scored_P, scored_P)
            self._attach(batch, tokens, weights, advantage_P, prompt_of_row_B)
        return batch

    def _demonstrations(
        self, inputs: list[dict[str, Any]], batch: Batch, first_rows: list[int]
    ) -> dict[int, DemonstrationTokens]:
        """Tokens of this process's usable demonstrations, by row; missing, cut and refused ones are counted."""
        usable: dict[int, DemonstrationTokens] = {}
        counts = dict.fromkeys(("missing", "cut", "refused"), 0)
        for row in first_rows:
            if is_missing(inputs[row].get("demonstration")):
                counts["missing"] += 1
                continue
            tokens = self._demonstration(inputs[row], batch["prompt_ids"][row][batch["prompt_mask"][row].bool()])
            if tokens is None:
                counts["refused"] += 1
            else:
                counts["cut"] += tokens.was_cut
                usable[row] = tokens
        totals = gather(torch.tensor([list(counts.values())], device=self.accelerator.device)).sum(dim=0).tolist()
        for name, total in zip(counts, totals):
            self._metrics["train"][f"demonstrations/{name}"].append(float(total))
        return usable

    def _demonstration(self, example: dict[str, Any], prompt_ids: Tensor) -> DemonstrationTokens | None:
        """Tokens of one demonstration, or None if it is malformed, or too long and to be refused or cut to nothing."""
        # Where an environment owns the data there may be no prompt; TRL then starts from an empty one.
        prompt = example.get("prompt", [{"role": "user", "content": ""}])
        try:
            tokens = self._tokenize_demonstration(prompt, example["demonstration"], prompt_ids.tolist())
        except ValueError as error:
            # One bad row must not end a run of days: its prompt stays on RL.
            logger.warning(f"Refused the demonstration of prompt {prompt_identifier(example)}: {error}")
            return None
        within = cut(tokens, self.args.demonstration_limit)
        if within.was_cut and (self.args.demonstration_overflow == "refuse" or not any(within.mask)):
            return None
        return within

    def _attach(
        self,
        batch: Batch,
        tokens: Mapping[int, DemonstrationTokens],
        weights: GateWeights,
        advantage_P: Tensor,
        prompt_of_row_B: Tensor,
    ) -> None:
        """Attach each gated demonstration to the first row of its group, as per-row tensors that TRL will shuffle."""
        device, prompts = self.accelerator.device, prompt_of_row_B.tolist()
        sft_P, off_policy_P = weights.demonstration_P, weights.off_policy_P * advantage_P
        gated = {row: got for row, got in tokens.items() if sft_P[prompts[row]] > 0 or off_policy_P[prompts[row]] > 0}
        none = DemonstrationTokens([], [])
        rows = [gated.get(row, none) for row in range(len(prompts))]
        pad_id = self._tokenizer.pad_token_id
        # `pad` cannot make a column of nothing: at least one column, all padding.
        batch["demonstration_ids"] = pad([torch.tensor(row.ids or [pad_id]) for row in rows], pad_id).to(device)
        batch["demonstration_mask"] = pad([torch.tensor(row.mask or [0]) for row in rows], 0).to(device)
        is_gated_B = torch.tensor([row in gated for row in range(len(prompts))], device=device)
        batch["demonstration_weight"] = sft_P[prompt_of_row_B] * is_gated_B
        batch["off_policy_weight"] = off_policy_P[prompt_of_row_B] * is_gated_B
        batch["demonstration_tokens"] = gather(batch["demonstration_mask"].sum().float()).sum()

    # 3. Mix the losses.

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if "demonstration_ids" not in inputs:
            # Evaluation, or a step in which the gate did not act: TRL's batch, to the bit.
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        signal = self._signal_mask(inputs)
        rows = signal.nonzero().flatten()
        demonstrations = ((inputs["demonstration_weight"] > 0) | (inputs["off_policy_weight"] > 0)).nonzero().flatten()
        # Ranks must make the same forwards in the same order: decide from the largest counts, not from our own.
        counts = torch.tensor([[len(rows), len(demonstrations)]], device=rows.device)
        most_rows, most_demonstrations = gather(counts).amax(dim=0).tolist()
        loss = torch.zeros((), device=rows.device)
        if most_rows:
            passed = inputs if len(rows) == len(signal) else rollout_rows(inputs, rows, most_rows)
            policy_loss = super().compute_loss(model, passed, return_outputs, num_items_in_batch)
            loss = loss + policy_loss * passed_share(self.loss_type, inputs, passed)
        # With nothing to learn anywhere, an empty demonstration is the cheapest zero with a gradient.
        if most_demonstrations or not most_rows:
            loss = loss + self._demonstration_loss(model, inputs, demonstrations)
        return loss

    def _signal_mask(self, inputs: Batch) -> Tensor:
        """(B,) True where a rollout can move the policy, or must be computed for another reason."""
        # Pictures, and the token types that go with them, are laid out by TRL for the rows it made.
        has_pictures = not {"pixel_values", "token_type_ids", "mm_token_type_ids"}.isdisjoint(inputs)
        if not self.args.drop_silent_rows or acts_without_advantage(self) or has_pictures:
            return torch.ones_like(inputs["advantages"], dtype=torch.bool)
        return (inputs["advantages"] != 0) & inputs["completion_mask"].any(dim=1)

    def _demonstration_loss(self, model: Any, inputs: Batch, rows: Tensor) -> Tensor:
        """Loss of this micro-batch's demonstrations, scaled to its share of the optimizer step's loss."""
        batch = demonstration_rows(inputs, rows)
        with self.accelerator.autocast():
            outputs = model(**batch, fused_lm_head=True, demonstration=True)
        mask_B_T = batch["labels"][:, 1:] != -100
        weight_B, advantage_B = (
            inputs[name][rows] if len(rows) else mask_B_T.new_zeros(1, dtype=torch.float32)
            for name in ("demonstration_weight", "off_policy_weight")
        )
        tokens = Tokens(outputs.log_probs, mask_B_T, advantages=advantage_B)
        nll_B_T = SFT.token_losses(tokens)
        reduce = token_means if self.args.sft_normalization == "prompt" else token_sums
        sft_B = self.args.sft_weight * weight_B * reduce(nll_B_T, mask_B_T)
        off_policy_B = reduce(OFF_POLICY.token_losses(tokens), mask_B_T)
        self._demonstration_sums += torch.stack([nll_B_T.detach().sum(), mask_B_T.sum(), mask_B_T.any(dim=1).sum()])
        return (sft_B + off_policy_B).sum() * self._share_of_step(inputs)

    def _share_of_step(self, inputs: Batch) -> Tensor | float:
        """What a sum over this micro-batch is multiplied with to become a mean over the whole optimizer step.

        Trainers average gradients over processes and, since TRL scales its own loss, add them over micro-batches.
        """
        micro_batches = self.current_gradient_accumulation_steps
        rows = inputs["advantages"].size(0)
        if self.args.sft_normalization == "prompt":
            return self.num_generations / (rows * micro_batches)
        # HPTConfig has made sure that this generation is this step.
        return self.accelerator.num_processes / inputs["demonstration_tokens"].clamp(min=1.0)

    # 4. Guard the optimizer step.

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._log_demonstrations()
        if self.is_deepspeed_enabled:
            # Its engine has stepped inside backward: nothing is left to guard.
            return grad_norm
        norm, limit = float(grad_norm), self.args.skip_grad_norm_above
        if not math.isfinite(norm) or (limit is not None and norm > limit):
            # Without gradients the optimizer leaves parameters and its own state alone.
            model.zero_grad(set_to_none=True)
            self._skipped_steps += 1
        self._metrics["train"]["hpt/skipped_steps"] = [float(self._skipped_steps)]
        return grad_norm

    # Metrics and history.

    def _note_history(self, first_examples: list[dict[str, Any]], solve_rate_P: Tensor, weights: GateWeights) -> None:
        prompt_ids = gather_object([prompt_identifier(example) for example in first_examples])
        if self.accelerator.is_main_process:
            self.gate_history.add(self.state.global_step, prompt_ids, solve_rate_P.tolist(), weights)

    def _log_solve_rates(self, solve_rate_P: Tensor) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["hpt/solve_rate"].append(solve_rate_P.nanmean().item())
        metrics["hpt/all_solved"].append((solve_rate_P == 1).float().mean().item())
        metrics["hpt/none_solved"].append((solve_rate_P == 0).float().mean().item())

    def _log_gate(self, weights: GateWeights, advantages_B: Tensor) -> None:
        metrics = self._metrics["train"]
        on_demonstration_P = (weights.demonstration_P > 0) | (weights.off_policy_P > 0)
        metrics["hpt/demonstration_share"].append(on_demonstration_P.float().mean().item())
        signal_B = torch.ones_like(advantages_B) if acts_without_advantage(self) else (advantages_B != 0).float()
        metrics["hpt/signal_share"].append(gather(signal_B).mean().item())

    def _log_demonstrations(self) -> None:
        """Mean NLL in nats a token and mean length in trained tokens, of the optimizer step on all processes."""
        nll, tokens, rows = gather(self._demonstration_sums.unsqueeze(0)).sum(dim=0).tolist()
        self._demonstration_sums.zero_()
        if rows:
            self._metrics["train"]["demonstrations/nll"].append(nll / tokens)
            self._metrics["train"]["demonstrations/length"].append(tokens / rows)
