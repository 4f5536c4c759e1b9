"""HPTTrainer: GRPOTrainer in which every prompt decides whether it learns from its rollouts or a demonstration.

The seam with TRL is a few overrides, each of which calls `super()`: `_calculate_rewards` keeps the rewards,
`_generate_and_score_completions` judges the groups and attaches the demonstrations, `_prepare_inputs` spreads the rows
that carry signal over forwards, `compute_loss` adds the demonstrations' loss, `_get_grad_norm` guards the step.
`_generate` is timed. Two more save time: `_get_per_token_logps_and_entropies` waits until it is known which rows carry
signal, and `_generate_single_turn` keeps the weights that autocast has cast. The rest make a run survive: `train` and
those of section 6 save and resume it exactly, and `_tokenize_prompts` tells of prompts that do not fit. Over 300 lines,
for TRL's private names may stand here and in `trl_hooks.py` only: what touches them cannot move out.
"""

import math
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.logging import get_logger
from accelerate.utils import gather, gather_object, is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from trl import GRPOTrainer
from trl.trainer.utils import get_config_model_id, pad

from hpt_trl.algorithm.estimator import (
    ALGORITHMS,
    OFF_POLICY,
    SFT,
    Algorithm,
    Tokens,
    demonstration_advantages,
    group_advantages,
    joint_advantages,
    summed_losses,
    token_means,
    token_sums,
)
from hpt_trl.algorithm.gate import Gate, GateWeights, constant_gate, gate_weights, is_shut, solve_rates
from hpt_trl.common.errors import RunError
from hpt_trl.config import HPTConfig
from hpt_trl.durability.checkpoints import (
    EpochEndCallback,
    batches_read,
    load_reference,
    load_state,
    mark_complete,
    rotate,
    save_reference,
    save_state,
    to_resume,
    unmark,
    writing,
)
from hpt_trl.durability.faults import TERMINATED, RewardGuard, TerminationCallback, first_fault, lost_process_explained
from hpt_trl.durability.gate_history import GateHistory, GateHistoryCallback
from hpt_trl.durability.hub import PUSH_ERRORS, creating, pushing, warn_if_failed, warn_of_failed_push
from hpt_trl.model_card.method import describe_method
from hpt_trl.model_card.model_card import write_card
from hpt_trl.model_card.run_facts import Origin, collect, describe_adapter
from hpt_trl.monitoring.progress_panel import show_progress
from hpt_trl.monitoring.run_log import RunRecorder, StepClock
from hpt_trl.monitoring.samples import SampleLog
from hpt_trl.trainer.checks import (
    check_algorithm,
    check_arguments,
    check_dataset,
    check_launch,
    check_prompts,
    check_served_model,
    check_support,
    check_tokenizer,
    context_length,
    gate_reward_index,
    keeps_one_backward,
    too_long,
)
from hpt_trl.trainer.demonstrations import (
    DemonstrationTokenizer,
    DemonstrationTokens,
    cut,
    is_missing,
    prompt_identifier,
)
from hpt_trl.trainer.forwards import spread, stay
from hpt_trl.trainer.row_packing import Batch, rollout_rows
from hpt_trl.trainer.trl_hooks import (
    acts_without_advantage,
    add_demonstration_head,
    latest_rollouts,
    restore_run_state,
    rows_are_independent,
    run_state,
    weights_are_sharded,
)

logger = get_logger(__name__)


class _RestoreCallback(TrainerCallback):
    """Calls a function when training begins, after transformers has set its own state."""

    def __init__(self, restore: Callable[[], None]) -> None:
        self.restore = restore

    def on_train_begin(self, args, state, control, **kwargs):
        self.restore()


def _no_progress(steps: int, norm: float, limit: float | None, step: int) -> str:
    reason = f"is above skip_grad_norm_above ({limit})" if math.isfinite(norm) else "is not finite"
    return (
        f"The gradient norm of {steps} optimizer steps in a row, up to step {step}, {reason} (the last: {norm:g}). "
        "Nothing is learned any more. Go on from an earlier checkpoint with a lower learning_rate or sft_weight; if "
        "weights or activations overflow, train in bf16 or fp32 instead of fp16. max_skipped_steps_in_row sets how "
        "many are endured."
    )


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
        algorithm (`Algorithm`, *optional*):
            Your own composition of [`~hpt_trl.algorithm.estimator.Estimator`]s, instead of the preset named by `args`.

    A demonstration is a text, one assistant message, or a list of messages. A prompt without one (None or empty) learns
    from its rollouts.

    Example:
        >>> from hpt_trl.miniature import MODEL_PATH
        >>> from hpt_trl.miniature.tasks import dataset
        >>> from hpt_trl.verifier.verdicts import accuracy_reward
        >>> args = HPTConfig("runs/first", max_steps=1, max_completion_length=16, use_cpu=True, bf16=False)
        >>> trainer = HPTTrainer(MODEL_PATH, accuracy_reward, args, train_dataset=dataset(8, 0, "train"))
        >>> trainer.gate(torch.tensor([0.0, 0.125]), 0).demonstration_P  # the first prompt was solved by no rollout
        tensor([1., 0.])
        >>> trainer.train()  # doctest: +SKIP
    """

    args: HPTConfig
    model: Any
    environment_factories: Any
    num_generations: int
    max_completion_length: int
    origin = Origin()
    _deferred: list[Callable] | None = None
    _began: float  # seconds since the epoch, moved back by the time trained before a resume
    _seconds_before: float = 0.0
    _to_push: str | None = None
    _train_sampler: Iterable[int] | None = None
    _rewards_B_F: Tensor  # (rows on all processes, reward functions) of the last generation

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
        algorithm: Algorithm | None = None,
        **keywords: Any,
    ):
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = HPTConfig(f"{name.split('/')[-1]}-HPT")
        check_arguments(args, gate, algorithm)
        self.algorithm = algorithm or ALGORITHMS[args.algorithm]
        self._has_own_gate, self._has_own_algorithm = gate is not None, algorithm is not None
        check_algorithm(args, self.algorithm)
        check_served_model(args, model)
        self._gate_is_off = (gate is None and args.gate == "off") or not self.algorithm.demonstrations
        if train_dataset is not None:
            check_dataset(
                train_dataset,
                args,
                needs_prompt=keywords.get("environment_factory") is None,
                needs_demonstrations=not self._gate_is_off,
                sees_pictures=self._gate_is_off and self.algorithm.trl_rollouts and args.max_tokens_per_forward is None,
            )
        super().__init__(model, reward_funcs, args, train_dataset, *positional, **keywords)
        check_launch(args, self.accelerator)
        check_tokenizer(self._tokenizer, train_dataset)
        self._check_prompts(train_dataset)
        check_support(args, self.algorithm, self.aux_loss_enabled, self._is_vlm, self.environment_factories is not None)
        is_joint_object = algorithm is not None and algorithm.joint_group
        self.gate = gate or (
            partial(constant_gate, rollouts=1, demonstration=1) if is_joint_object else args.build_gate()
        )
        # The mixtures of other algorithms hold whatever the verdicts, and where there is none.
        self._gate_reads_verdicts = gate is not None or (args.algorithm == "hpt" and not is_joint_object)
        needs_verdicts = bool(self.algorithm.rollouts) and not (self._gate_is_off and self.algorithm.trl_rollouts)
        self._gate_reward_index = gate_reward_index(self.reward_func_names, args.gate_reward, needs_verdicts)
        self._tokenize_demonstration = DemonstrationTokenizer(
            self._tokenizer,
            self.eos_token_ids,
            {"chat_template": self.chat_template, "tools": self.tools or None} | cast(dict, self.chat_template_kwargs),
        )
        self._demonstration_sums = torch.zeros(3, device=self.accelerator.device)  # NLL, tokens, rows
        base_model = self.model.get_base_model() if is_peft_model(self.model) else self.model
        add_demonstration_head(base_model, args.cast_lm_head_to_fp32)
        self._prepare_to_survive()
        self._prepare_to_tell()

    @property
    def uses_demonstrations(self) -> bool:
        """Whether a prompt can learn from its demonstration."""
        return not self._gate_is_off

    def _prepare_to_survive(self) -> None:
        """Set up what saves and resumes a run, stops it upon a signal, and tells of reward functions that fail."""
        self._skipped_steps = self._skipped_in_row = 0
        self.gate_history = GateHistory()
        self._history_callback = GateHistoryCallback(self.gate_history, self._is_pushing)
        self._termination = TerminationCallback()
        restore = _RestoreCallback(self._restore)
        for callback in (self._history_callback, restore, self._termination, EpochEndCallback()):
            self.add_callback(callback)
        self._reward_guard = RewardGuard(self.args.reward_timeout)
        self.reward_funcs = [
            function if isinstance(function, nn.Module) else self._reward_guard.wrap(cast(Callable, function), name)
            for function, name in zip(self.reward_funcs, self.reward_func_names)
        ]

    def _prepare_to_tell(self) -> None:
        """Set up what a run records of itself, and what it shows in the terminal."""
        # For the model card, which can no longer see an adapter once it is merged.
        self.adapter = describe_adapter(self.model)
        self._clock = StepClock()
        self.samples = SampleLog()
        facts = {
            "trainer": type(self).__name__,
            "model": get_config_model_id(self.model.config),
            "reward_functions": self.reward_func_names,
            "gate": "a callable of the user's" if self._has_own_gate else self.args.gate,
            "algorithm": "an object of the user's" if self._has_own_algorithm else self.args.algorithm,
        }
        self.add_callback(RunRecorder(self.samples, facts))
        self._panel = show_progress(self, self.samples)

    # 1. Keep the rewards.

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self._clock.measure("verdicts", self.model.training):
            self._rewards_B_F = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._reward_guard.raise_fault(self.state.global_step)
        return self._rewards_B_F

    def _tokenize_prompts(self, prompts):
        tokenized = super()._tokenize_prompts(prompts)
        # Before anything is generated, and on every process: the prompt may be on one of them only.
        fault = first_fault(too_long([len(ids) for ids in tokenized[0]], self._context_length()))
        if fault is not None:
            raise RunError(f"At step {self.state.global_step}, {fault}")
        return tokenized

    def _context_length(self) -> int | None:
        return context_length(self.model.config.get_text_config())

    def _check_prompts(self, dataset: Dataset | IterableDataset | None) -> None:
        """Refuse prompts that do not fit, of data that can be looked through."""
        columns = set(dataset.column_names) if isinstance(dataset, Dataset) else set()
        if "prompt" not in columns or columns & {"image", "images"} or self.environment_factories is not None:
            return
        lengths_of = super()._tokenize_prompts
        check_prompts(
            cast(Dataset, dataset)["prompt"],
            lambda prompts: [len(ids) for ids in lengths_of(prompts)[0]],
            self._context_length(),
        )

    # 2. Judge the groups. TRL shuffles rows after this: here, and only here, groups are whole.

    def _generate_and_score_completions(self, inputs):
        if self.model.training and not self.algorithm.rollouts:
            return self._score_without_rollouts(inputs)
        with self._deferred_logps() as deferred:
            batch = super()._generate_and_score_completions(inputs)
        if self._gate_reward_index is None:
            self._note_samples()
            return batch
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        rewards_P_G = self._rewards_B_F[:, self._gate_reward_index].view(-1, group_size)
        solve_rate_P = solve_rates(rewards_P_G, self.args.gate_success_value)
        self._log_solve_rates(solve_rate_P)
        if not self.model.training:
            return batch

        tokens, has_demonstration_P = self._demonstrations(inputs, batch)
        rate_P = solve_rate_P if self._gate_reads_verdicts else solve_rate_P.nan_to_num()
        weights = gate_weights(self.gate, rate_P, has_demonstration_P, self.state.global_step)
        prompt_of_row_B = self._prompt_of_row(len(inputs))
        scored_P = (~rewards_P_G.isnan()).sum(dim=1)
        advantage_P = demonstration_advantages(solve_rate_P.nan_to_num() * scored_P, scored_P)
        if self.algorithm.joint_group:
            advantage_P = self._estimate_advantages(batch, self._demonstration_rewards(inputs, tokens))
        elif not self.algorithm.trl_rollouts and self.algorithm.group_advantage() is not None:
            self._estimate_advantages(batch, torch.full_like(solve_rate_P, torch.nan))
        batch["advantages"] = batch["advantages"] * weights.rollouts_P[prompt_of_row_B]
        if not self.algorithm.trl_rollouts:
            # For advantages that are taken row by row: the verdict, and the gate's weight.
            batch["rewards"] = self._own_rows(solve_rates(rewards_P_G.view(-1, 1), self.args.gate_success_value))
            batch["rollout_weight"] = weights.rollouts_P[prompt_of_row_B]
        self._log_gate(weights, batch)
        self._note_history(inputs, solve_rate_P, weights)
        self._note_samples(solve_rate_P, weights)
        if not is_shut(weights):
            self._attach(batch, tokens, weights, advantage_P, prompt_of_row_B)
        for later in deferred:
            self._fill_old_logps(later, batch)
        return batch

    def _generate(self, *args, **kwargs):
        with self._clock.measure("generation", self.model.training):
            return super()._generate(*args, **kwargs)

    def _generate_single_turn(self, *args, **kwargs):
        by_other_means = self.use_vllm or self.use_transformers_continuous_batching or weights_are_sharded(self)
        # Autocast wraps the forward of peft's model, whose `generate` calls its base model's.
        if by_other_means or is_peft_model(self.model):
            return super()._generate_single_turn(*args, **kwargs)
        # Every forward has its own autocast context, and casts all weights anew for each token. Within one context for
        # the whole generation they are cast once: the same numbers, for a second copy of the weights meanwhile.
        with self.accelerator.autocast():
            return super()._generate_single_turn(*args, **kwargs)

    @contextmanager
    def _deferred_logps(self) -> Iterator[list[Callable]]:
        """Put off what TRL computes of all rows before their verdicts are known, where only some rows will need it.

        With vLLM, TRL takes its importance ratio from it at once; with KL, every row needs it.
        """
        deferred: list[Callable] = []
        cannot_wait = self._gate_is_off or self._gate_reward_index is None or self.use_vllm
        if self.model.training and not (cannot_wait or acts_without_advantage(self)):
            self._deferred = deferred
        try:
            yield deferred
        finally:
            self._deferred = None

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        compute = super()._get_per_token_logps_and_entropies
        if self._deferred is None:
            return compute(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)

        def later(small: Batch | None) -> Tensor:
            if small is None:
                return compute(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)[0]
            ids = torch.cat([small["prompt_ids"], small["completion_ids"]], dim=1)
            mask = torch.cat([small["prompt_mask"], small["completion_mask"]], dim=1)
            return compute(model, ids, mask, small["completion_ids"].size(1), *args, **kwargs)[0]

        self._deferred.append(later)
        return input_ids.new_zeros(len(input_ids), logits_to_keep, dtype=torch.float32), None, None

    @torch.no_grad()
    def _fill_old_logps(self, later: Callable, batch: Batch) -> None:
        """Compute the old policy's log-probabilities of the rows that will be computed: TRL's to the bit if all are."""
        if "demonstration_ids" not in batch or not self._may_drop():
            batch["old_per_token_logps"] = later(None)
            return
        rows = self._signal_mask(batch).nonzero().flatten()
        most = int(gather(torch.tensor([len(rows)], device=rows.device)).max())
        if most:
            columns = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
            logps = later(rollout_rows({name: batch[name] for name in columns}, rows, most))
            batch["old_per_token_logps"][rows, : logps.size(1)] = logps[: len(rows)].float()

    def _score_without_rollouts(self, inputs: list[dict[str, Any]]) -> Batch:
        """A batch in TRL's form whose rows hold a prompt, no completion, and their group's demonstration."""
        ids = self._tokenize_prompts([example["prompt"] for example in inputs])[0]
        prompt_ids = [torch.tensor(each, dtype=torch.long) for each in ids]
        device, pad_id = self.accelerator.device, self._tokenizer.pad_token_id
        no_tokens = torch.zeros(len(inputs), 1, dtype=torch.long, device=device)
        batch: Batch = {
            "prompt_ids": pad(prompt_ids, pad_id, padding_side="left").to(device),
            "prompt_mask": pad([torch.ones_like(ids) for ids in prompt_ids], 0, padding_side="left").to(device),
            "completion_ids": no_tokens + pad_id,
            "completion_mask": no_tokens,
            "advantages": torch.zeros(len(inputs), device=device),
        }
        tokens, has_demonstration_P = self._demonstrations(inputs, batch)
        nothing_P = torch.zeros_like(has_demonstration_P, dtype=torch.float)
        weights = GateWeights(nothing_P, has_demonstration_P.float(), nothing_P)
        self._log_gate(weights, batch)
        self._note_history(inputs, nothing_P + torch.nan, weights)  # nothing was tried: no solve rate
        self._attach(batch, tokens, weights, nothing_P, self._prompt_of_row(len(inputs)))
        return batch

    def _estimate_advantages(self, batch: Batch, demonstration_P: Tensor) -> Tensor:
        """Replace TRL's advantages by the algorithm's, over groups that a demonstration may join.

        Args:
            batch: TRL's batch, whose `advantages` are replaced.
            demonstration_P: (P,) rewards of the demonstrations, NaN where none joins.

        Returns:
            (P,) advantages of the demonstrations; 0 where none joined.
        """
        rewards_P_G = self._total_rewards(self._rewards_B_F).view(-1, self.num_generations)
        part = self.algorithm.group_advantage()
        if part is None or self.algorithm.trl_rollouts:
            part = partial(group_advantages, scale=self.args.scale_rewards == "group")
        advantages_P_G, advantage_P = joint_advantages(rewards_P_G, demonstration_P, part)
        batch["advantages"] = self._own_rows(advantages_P_G.flatten())
        return advantage_P

    def _demonstration_rewards(self, inputs: list[dict[str, Any]], tokens: Mapping[int, DemonstrationTokens]) -> Tensor:
        """(P,) rewards that the run's own reward functions give the demonstrations as trained on; NaN without one."""
        ids = [tokens[row].ids if row in tokens else [] for row in range(len(inputs))]
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        is_chat = not isinstance(inputs[0]["prompt"], str)
        completions = [[{"role": "assistant", "content": text}] if is_chat else text for text in texts]
        rewards_B_F = super()._calculate_rewards(inputs, [example["prompt"] for example in inputs], completions, ids)
        self._reward_guard.raise_fault(self.state.global_step)
        # What reward functions log is of rollouts.
        self._pending_extra_logs.clear()
        self._pending_metrics.clear()
        is_there_B = torch.tensor([row in tokens for row in range(len(inputs))], device=self.accelerator.device)
        rewards_B = self._total_rewards(rewards_B_F).masked_fill(~gather(is_there_B), torch.nan)
        return rewards_B[:: self.num_generations]

    def _total_rewards(self, rewards_B_F: Tensor) -> Tensor:
        """Weighted sum over reward functions, as TRL takes it; NaN where none could score."""
        rewards_B = (rewards_B_F * self.reward_weights.to(rewards_B_F)).nansum(dim=1)
        return rewards_B.masked_fill(rewards_B_F.isnan().all(dim=1), torch.nan)

    def _own_rows(self, values_B: Tensor) -> Tensor:
        """This process's part of what is known of all rows."""
        rows = len(values_B) // self.accelerator.num_processes
        first = self.accelerator.process_index * rows
        return values_B[first : first + rows]

    def _prompt_of_row(self, rows: int) -> Tensor:
        """(B,) number of each of this process's rows' prompt, counted over all processes."""
        first = self.accelerator.process_index * rows
        return torch.arange(first, first + rows, device=self.accelerator.device) // self.num_generations

    def _first_rows(self, rows: int) -> list[int]:
        """This process's rows that open a group: a group may span processes, its first row is on one of them."""
        first = self.accelerator.process_index * rows
        return [row for row in range(rows) if (first + row) % self.num_generations == 0]

    def _demonstrations(
        self, inputs: list[dict[str, Any]], batch: Batch
    ) -> tuple[dict[int, DemonstrationTokens], Tensor]:
        """Tokens of this process's usable demonstrations, by row, and (P,) which prompts have one anywhere.

        Missing, cut and refused ones are counted.
        """
        usable: dict[int, DemonstrationTokens] = {}
        counts = dict.fromkeys(("missing", "cut", "refused"), 0)
        for row in [] if self._gate_is_off else self._first_rows(len(inputs)):
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
        has_one_B = torch.zeros(len(inputs), dtype=torch.long, device=self.accelerator.device)
        has_one_B[list(usable)] = 1
        return usable, gather(has_one_B)[:: self.num_generations] > 0

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
        is_wanted_P = (weights.demonstration_P > 0) | (weights.off_policy_P > 0)
        gated = {row: got for row, got in tokens.items() if is_wanted_P[prompts[row]]}
        none = DemonstrationTokens([], [])
        rows = [gated.get(row, none) for row in range(len(prompts))]
        pad_id = self._tokenizer.pad_token_id
        # `pad` cannot make a column of nothing: at least one column, all padding.
        batch["demonstration_ids"] = pad([torch.tensor(row.ids or [pad_id]) for row in rows], pad_id).to(device)
        batch["demonstration_mask"] = pad([torch.tensor(row.mask or [0]) for row in rows], 0).to(device)
        is_gated_B = torch.tensor([row in gated for row in range(len(prompts))], device=device)
        batch["demonstration_weight"] = weights.demonstration_P[prompt_of_row_B] * is_gated_B
        batch["off_policy_weight"] = weights.off_policy_P[prompt_of_row_B] * is_gated_B
        batch["demonstration_advantage"] = advantage_P[prompt_of_row_B]
        batch["demonstration_tokens"] = gather(batch["demonstration_mask"].sum().float()).sum()

    # 3. Spread the rows that carry signal over forwards.

    def _prepare_inputs(self, generation_batch):
        generated_before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is generated_before:
            return inputs
        if "demonstration_ids" not in inputs and self.args.max_tokens_per_forward is None:
            # The gate did not act: TRL's micro-batches, to the bit.
            return inputs
        self._buffered_inputs = self._spread(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _spread(self, batches: list[Batch]) -> list[Batch]:
        """Micro-batches of forwards, from those of one generation."""
        signals = [self._signal_mask(batch) | (not self._may_drop()) for batch in batches]
        if not (rows_are_independent(self) and self._may_drop()):
            return [stay(batch, signal, self.loss_type) for batch, signal in zip(batches, signals)]
        # Rows stay in their optimizer step, whose boundaries lie on multiples of this.
        size = math.gcd(len(batches), self.args.gradient_accumulation_steps)
        return [
            batch
            for start in range(0, len(batches), size)
            for batch in spread(
                batches[start : start + size],
                signals[start : start + size],
                self.loss_type,
                self.args.max_tokens_per_forward,
            )
        ]

    # 4. Mix the losses.

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if return_outputs:
            # TRL refuses, in its own words.
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if "generated_rows" not in inputs:
            # Evaluation, or a step in which the gate did not act.
            return self._policy_loss(model, inputs)
        forwards = [partial(self._rollout_loss, model, forward) for forward in inputs["rollouts"]]
        rows = inputs["generated_rows"]
        forwards += [partial(self._demonstration_loss, model, forward, rows) for forward in inputs["demonstrations"]]
        *others, last = forwards
        if keeps_one_backward(self.accelerator, self.args):
            return sum((forward() for forward in others), last())
        done = sum(self._backward(model, forward) for forward in others)
        return last() + done

    def _backward(self, model: Any, forward: Callable[[], Tensor]) -> Tensor:
        """Backpropagate one forward of several, so that no two graphs are held at a time; returns its loss."""
        state = self.accelerator.gradient_state
        steps = state.sync_gradients
        # DDP waits for the last forward. Sharded gradients add up as they are reduced: waiting would hold them whole.
        waits = steps and not (self.is_deepspeed_enabled or self.is_fsdp_enabled)
        with self.accelerator.no_sync(model) if waits else nullcontext():
            loss = forward()
            # DeepSpeed's engine would take its step in the backward of the step's last micro-batch.
            state._set_sync_gradients(False)
            try:
                self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
            finally:
                state._set_sync_gradients(steps)
        return loss.detach()

    def _rollout_loss(self, model: Any, forward: Batch) -> Tensor:
        return self._policy_loss(model, forward) * forward["share"]

    def _policy_loss(self, model: Any, inputs: Batch) -> Tensor:
        """TRL's loss on rollouts, or the algorithm's."""
        if self.algorithm.trl_rollouts or not self.model.training:
            return super().compute_loss(model, inputs)
        logps_B_T, entropies_B_T, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            inputs["completion_ids"].size(1),
            compute_entropy=True,
        )
        mask_B_T = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        old_B_T, advantages_B, rewards_B = (inputs.get(key) for key in ("old_per_token_logps", "advantages", "rewards"))
        tokens = Tokens(logps_B_T, mask_B_T, old_B_T, advantages_B, rewards_B, entropies=entropies_B_T)
        losses_B_T = summed_losses(self.algorithm.rollouts, tokens)
        if self.algorithm.group_advantage() is None:
            # The gate has weighed group advantages already.
            losses_B_T = losses_B_T * inputs["rollout_weight"].unsqueeze(1)
        if "importance_sampling_ratio" in inputs:
            # TRL's correction for vLLM, which sampled with other weights in other precision.
            losses_B_T = losses_B_T * inputs["importance_sampling_ratio"]
        return self._row_losses(losses_B_T, mask_B_T).mean() / self.current_gradient_accumulation_steps

    def _row_losses(self, losses_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
        """(B,) losses of rows, averaged over tokens as TRL's `loss_type` "grpo" or "dr_grpo" does."""
        if self.loss_type == "grpo":
            return token_means(losses_B_T, mask_B_T)
        return token_sums(losses_B_T, mask_B_T) / self.max_completion_length

    def _may_drop(self) -> bool:
        """Whether rows without signal may be left out of the forward."""
        # Pictures, which tools may return on one rank only, are laid out by TRL for the rows it made.
        return not self.algorithm.rollouts or (self.args.drop_silent_rows and not self._is_vlm)

    def _signal_mask(self, inputs: Batch) -> Tensor:
        """(B,) True where a rollout can move the policy, or what another rollout does to it."""
        if not self.algorithm.rollouts:
            return torch.zeros_like(inputs["advantages"], dtype=torch.bool)
        if not self.algorithm.trl_rollouts and self.algorithm.group_advantage() is None:
            return inputs["rollout_weight"] != 0
        if acts_without_advantage(self):
            return torch.ones_like(inputs["advantages"], dtype=torch.bool)
        return (inputs["advantages"] != 0) & inputs["completion_mask"].any(dim=1)

    def _demonstration_loss(self, model: Any, batch: Batch, rows: int) -> Tensor:
        """Loss of one forward of demonstrations, scaled to its share of the optimizer step's loss.

        Args:
            batch: `input_ids`, `attention_mask`, `labels` (R, L), and (R,) weights.
            rows: rollouts generated for a micro-batch.
        """
        with self.accelerator.autocast():
            outputs = model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                labels=batch["labels"],
                fused_lm_head=True,
                demonstration=True,
            )
        mask_B_T = batch["labels"][:, 1:] != -100
        tokens = Tokens(
            outputs.log_probs, mask_B_T, advantages=batch["demonstration_advantage"], entropies=outputs.entropy
        )
        reduce = token_means if self.args.sft_normalization == "prompt" else token_sums
        alone = [each for each in self.algorithm.demonstrations if not each.needs_groups]
        joint = [each for each in self.algorithm.demonstrations if each.needs_groups]
        weight_B = batch["demonstration_weight"]
        sft_B = self.args.sft_weight * weight_B * reduce(summed_losses(alone, tokens), mask_B_T)
        off_policy_B = batch["off_policy_weight"] * reduce(OFF_POLICY.token_losses(tokens), mask_B_T)
        loss = (sft_B + off_policy_B).sum() * self._share_of_step(batch, rows)
        if joint:
            # A demonstration that joins its group is a row of it, and weighs what a rollout weighs.
            joint_B = weight_B * self._row_losses(summed_losses(joint, tokens), mask_B_T)
            loss = loss + joint_B.sum() / (rows * self.current_gradient_accumulation_steps)
        nll = SFT.token_losses(tokens).detach().sum()
        self._demonstration_sums += torch.stack([nll, mask_B_T.sum(), mask_B_T.any(dim=1).sum()])
        return loss

    def _share_of_step(self, batch: Batch, rows: int) -> Tensor | float:
        """What a sum over this forward is multiplied with to become a mean over the whole optimizer step.

        Trainers average gradients over processes and, since TRL scales its own loss, add them over micro-batches.
        """
        if self.args.sft_normalization == "prompt":
            return self.num_generations / (rows * self.current_gradient_accumulation_steps)
        # HPTConfig has made sure that this generation is this step.
        return self.accelerator.num_processes / batch["demonstration_tokens"].clamp(min=1.0)

    # 5. Guard the optimizer step.

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._log_demonstrations()
        for part, seconds in self._clock.take().items():
            self._metrics["train"][f"time/{part}"].append(seconds)
        norm, limit = float(grad_norm or 0.0), self.args.skip_grad_norm_above
        is_bad = not math.isfinite(norm) or (limit is not None and norm > limit)
        self._skipped_in_row = self._skipped_in_row + 1 if is_bad else 0
        # DeepSpeed's engine has stepped inside backward: nothing is left to skip.
        if is_bad and not self.is_deepspeed_enabled:
            # Without gradients the optimizer leaves parameters and its own state alone.
            model.zero_grad(set_to_none=True)
            self._skipped_steps += 1
        if not self.is_deepspeed_enabled:
            self._metrics["train"]["hpt/skipped_steps"] = [float(self._skipped_steps)]
        if self._skipped_in_row >= self.args.max_skipped_steps_in_row:
            raise RunError(_no_progress(self._skipped_in_row, norm, limit, self.state.global_step))
        return grad_norm

    # 6. Save and resume exactly.

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """
        Train, as [`~transformers.Trainer`] does.

        A run resumed from a checkpoint of its own, on as many processes, goes on exactly as if it had never been
        interrupted, where generation is transformers'. Upon SIGTERM it saves a checkpoint after the step and ends the
        process with exit code 143.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                Folder of a checkpoint; `True` for the newest complete one in `output_dir`; `"auto"` for the same, or a
                fresh start where there is none.
            trial, ignore_keys_for_eval (*optional*):
                As in [`~transformers.Trainer`].

        Returns:
            `TrainOutput`: steps done, and mean loss and times of the whole run, what came before a resume included.

        Raises:
            RunError: for what a user can mend, a checkpoint that is not whole among it, in one paragraph that says how.
        """
        checkpoint = to_resume(resume_from_checkpoint, Path(str(self.args.output_dir)))
        self._history_callback.checkpoint = checkpoint
        with self._termination.listening(), lost_process_explained(), self._panel:
            output = super().train(checkpoint, trial, ignore_keys_for_eval)
        if self._termination.has_stopped:
            raise SystemExit(TERMINATED)
        return output

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        has_collectives = self.is_deepspeed_enabled or self.is_fsdp_enabled or self.state.best_global_step
        limit = self.args.save_total_limit
        if self.args.should_save:
            unmark(folder)
        self.accelerator.wait_for_everyone()
        try:
            with writing(folder, together=not has_collectives):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        # Of a model only there is nothing to resume from, and transformers has deleted the older ones.
        if not self.args.save_only_model:
            with writing(folder, together=True):
                if self.args.should_save:
                    mark_complete(folder)
            if self.args.should_save:
                rotate(folder, limit, self.state.best_model_checkpoint)
        self._push_saved()

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        own = {
            "layout": self._layout(),
            "skipped_steps": self._skipped_steps,
            "skipped_in_row": self._skipped_in_row,
            "seconds": time.time() - self._began,
        }
        save_state(Path(output_dir), self.args.process_index, own | run_state(self))
        reference = self._moving_reference()
        if reference is not None and self.args.should_save:
            save_reference(Path(output_dir), reference)
        if self.accelerator.is_main_process:
            self.gate_history.write(output_dir)
        # The older checkpoints must stay until this one is complete: `_save_checkpoint` deletes them then.
        self.args.save_total_limit = None

    def _layout(self) -> dict[str, int]:
        """What the rollouts left to train on depend on."""
        batches = ("steps_per_generation", "gradient_accumulation_steps", "per_device_train_batch_size")
        names = (*batches, "num_iterations", "num_generations")
        return {name: getattr(self.args, name) for name in names} | {"processes": self.accelerator.num_processes}

    def _moving_reference(self) -> nn.Module | None:
        """The reference model of KL if it follows the policy (`sync_ref_model`) and is whole on this process."""
        if not self.args.sync_ref_model or weights_are_sharded(self):
            return None
        return self.accelerator.unwrap_model(self.ref_model)

    def _restore(self) -> None:
        """Take up where the checkpoint left off, when training begins."""
        self._seconds_before = 0.0
        checkpoint = self._history_callback.checkpoint
        if checkpoint is not None:
            self._restore_from(Path(checkpoint))
        self._began = time.time() - self._seconds_before

    def _restore_from(self, checkpoint: Path) -> None:
        if self._train_sampler is not None:
            # TRL's sampler draws each epoch's order from a generator of its own, which nobody saves.
            for _ in range(int(self.state.epoch or 0)):
                next(iter(self._train_sampler))
        if self.args.sync_ref_model:
            load_reference(checkpoint, self._moving_reference())
        state = load_state(checkpoint, self.args.process_index, self._layout(), self.accelerator.device)
        if state is not None:
            restore_run_state(self, state)
            self._skipped_steps, self._skipped_in_row = state["skipped_steps"], state["skipped_in_row"]
            self._seconds_before = state["seconds"]

    def _get_train_sampler(self, dataset=None):
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        where = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None or not isinstance(self.train_dataset, IterableDataset):
            return where
        # Of a stream transformers takes all steps for one epoch's, and would read past its end.
        epoch, batches = batches_read(Path(resume_from_checkpoint), self.args.gradient_accumulation_steps)
        return epoch, 0 if self.args.ignore_data_skip else batches

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self.state.global_step >= self.state.max_steps:
            # Resumed from the last checkpoint, transformers would make one step too many.
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _finalize_training(self, trial, num_train_samples, start_time):
        self._finish_current_push()
        args, start_time = self.args, start_time - self._seconds_before
        if not self._termination.has_stopped:
            return super()._finalize_training(trial, num_train_samples, start_time)
        # The run is not over: transformers would load its best model, and keep that checkpoint alone of a limit of one.
        kept = args.load_best_model_at_end, args.save_total_limit
        args.load_best_model_at_end, args.save_total_limit = False, None
        output = super()._finalize_training(trial, num_train_samples, start_time)
        args.load_best_model_at_end, args.save_total_limit = kept
        return output

    # 7. Push to the Hub, which may fail.

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Create the repository or find it, as [`~transformers.Trainer`] does. Raises HubError where that fails."""
        with creating(self._repository):
            super().init_hf_repo(*args, **kwargs)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Save the model and upload it with its card, as [`~transformers.Trainer`] does.

        Raises:
            HubError: if the upload fails; the model is in `output_dir` then, and the text says how to push it later.
        """
        # What is being uploaded may not change, and the card is about to be written.
        self._finish_current_push()
        with pushing(str(self.args.output_dir), self._repository):
            return super().push_to_hub(*args, **kwargs)

    def create_model_card(  # type: ignore[override]  # TRL's signature, which is not transformers'
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """
        Write `README.md` into `output_dir`: base, data, gate, share of prompts on demonstrations, use, versions.

        TRL's card is not written first: its metadata are not valid, and of a local base it says "None".

        Args:
            model_name (`str`, *optional*):
                Name of the model. `None`: that of its repository or folder.
            dataset_name (`str`, *optional*):
                Id of the data on the Hub. `None`: what the command line knew of them.
            tags (`str` or `list[str]`, *optional*):
                More tags for the metadata.
        """
        # What is being uploaded may not change; the next checkpoint brings the card up to date.
        if not self.is_world_process_zero() or self._is_pushing():
            return
        name = model_name or self._repository.split("/")[-1]
        own_gate = getattr(self.gate, "__name__", type(self.gate).__name__) if self._has_own_gate else ""
        gate = "off" if self._gate_is_off else own_gate
        algorithm = "" if self._has_own_algorithm else self.args.algorithm
        # With the gate shut it is TRL's GRPO, and its paper.
        paper = self._paper if self.uses_demonstrations or algorithm != "hpt" else GRPOTrainer._paper
        all_tags = {*self._tag_names, *([tags] if isinstance(tags, str) else tags or [])}
        method = describe_method(self.args, gate, algorithm)
        facts = collect(self, name, dataset_name or "", all_tags, method, paper)
        try:
            facts.write(str(self.args.output_dir))
            write_card(facts, str(self.args.output_dir))
        except OSError as error:
            # While saving, this process is on its way to a collective: raising would leave the others in that.
            logger.warning(f"The model card could not be written: {error}.")

    @property
    def _repository(self) -> str:
        return self.hub_model_id or self.args.hub_model_id or Path(str(self.args.output_dir)).absolute().name

    def _is_pushing(self) -> bool:
        push = getattr(self, "push_in_progress", None)
        return push is not None and not push.is_done()

    def _push_from_checkpoint(self, checkpoint_folder):
        # transformers comes here before the checkpoint is marked complete: `_save_checkpoint` pushes it then.
        self._to_push = checkpoint_folder

    def _push_saved(self) -> None:
        """Push the checkpoint just saved in the background, where `hub_strategy` says so; tell if it fails."""
        folder, self._to_push = self._to_push, None
        if folder is None:
            return
        step = self.state.global_step
        jobs_before = list(getattr(getattr(self, "push_in_progress", None), "jobs", []))
        try:
            super()._push_from_checkpoint(folder)
        except PUSH_ERRORS as error:  # of a tracker, which uploads its own before
            warn_of_failed_push(error, self._repository, step)
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", []):
            if job not in jobs_before:
                job.add_done_callback(partial(warn_if_failed, repo=self._repository, step=step))

    # Metrics and history.

    def _note_history(self, inputs: list[dict[str, Any]], solve_rate_P: Tensor, weights: GateWeights) -> None:
        prompt_ids = gather_object([prompt_identifier(inputs[row]) for row in self._first_rows(len(inputs))])
        if self.accelerator.is_main_process:
            self.gate_history.add(self.state.global_step, prompt_ids, solve_rate_P.tolist(), weights)

    def _note_samples(self, solve_rate_P: Tensor | None = None, weights: GateWeights | None = None) -> None:
        if self.model.training and self.accelerator.is_main_process:
            step = self.state.global_step
            self.samples.note(latest_rollouts(self), step, self.num_generations, solve_rate_P, weights)

    def _log_solve_rates(self, solve_rate_P: Tensor) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["hpt/solve_rate"].append(solve_rate_P.nanmean().item())
        metrics["hpt/all_solved"].append((solve_rate_P == 1).float().mean().item())
        metrics["hpt/none_solved"].append((solve_rate_P == 0).float().mean().item())

    def _log_gate(self, weights: GateWeights, batch: Batch) -> None:
        metrics = self._metrics["train"]
        on_demonstration_P = (weights.demonstration_P > 0) | (weights.off_policy_P > 0)
        metrics["hpt/demonstration_share"].append(on_demonstration_P.float().mean().item())
        metrics["hpt/signal_share"].append(gather(self._signal_mask(batch).float()).mean().item())

    def _log_demonstrations(self) -> None:
        """Mean NLL in nats a token and mean length in trained tokens, of the optimizer step on all processes."""
        nll, tokens, rows = gather(self._demonstration_sums.unsqueeze(0)).sum(dim=0).tolist()
        self._demonstration_sums.zero_()
        if rows:
            self._metrics["train"]["demonstrations/nll"].append(nll / tokens)
            self._metrics["train"]["demonstrations/length"].append(tokens / rows)
