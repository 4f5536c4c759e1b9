"""HPTTrainer: GRPOTrainer that trains each prompt on its rollouts or on a demonstration, depending on its solve rate.

One step, in call order: `_generate_and_score_completions` samples, scores, asks the gate and attaches the
demonstrations that it chose; `_prepare_inputs` regroups rows into forward passes of similar token counts;
`compute_loss` runs and backpropagates them one by one. Saving, resuming, signals and the Hub are in `durable.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl.trainer.grpo_trainer import EnvironmentFactory, RewardFunc, RolloutFunc
from trl.trainer.utils import get_config_model_id

from hpt_trl.algorithm.gate import Gate, GateWeights, check_gate, is_rollouts_only
from hpt_trl.algorithm.group_decision import Decision
from hpt_trl.algorithm.presets import ALGORITHMS, Algorithm
from hpt_trl.common.imports import is_dotted_path
from hpt_trl.config import HPTConfig
from hpt_trl.data.sources import resolve_model
from hpt_trl.durability.gate_history import GateHistory, GateHistoryCallback
from hpt_trl.model_card.run_facts import Origin, describe_adapter
from hpt_trl.monitoring.progress_panel import show_progress
from hpt_trl.monitoring.run_log import RunRecorder
from hpt_trl.monitoring.samples import SampleLog
from hpt_trl.trainer.batches import (
    DemonstrationForward,
    GatedBatch,
    RolloutBatch,
    RolloutForward,
    RowIndex,
    has_rollouts,
    is_forward_passes,
    is_gated,
)
from hpt_trl.trainer.card import PAPER, method_facts, recorded_facts, write_run_card
from hpt_trl.trainer.checks import (
    check_arguments,
    check_before_loading,
    check_support,
    gate_reward_index,
    room_of,
)
from hpt_trl.trainer.collector import DemonstrationCollector, Demonstrations
from hpt_trl.trainer.demonstration_checks import warn_of_useless_demonstrations
from hpt_trl.trainer.demonstration_step import batch_of_demonstrations, demonstration_losses
from hpt_trl.trainer.demonstrations import DemonstrationTokenizer, prompt_identifier
from hpt_trl.trainer.durable import DurableGRPOTrainer
from hpt_trl.trainer.forwards import backward_each, regroup
from hpt_trl.trainer.image_columns import IMAGE_COLUMNS
from hpt_trl.trainer.losses import has_signal, rollout_losses, row_losses
from hpt_trl.trainer.needed_logps import NeededLogps
from hpt_trl.trainer.step_log import StepLog
from hpt_trl.trainer.trl_hooks import (
    Generated,
    add_demonstration_head,
    has_advantage,
    latest_rollouts,
    rows_are_independent,
    zero_advantage_rows_matter,
)
from hpt_trl.trainer.verdict import Verdict, groups_of, judge
from hpt_trl.trainer.warmup import SFTWarmup, is_in_warmup, warmup_batch

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import BitsAndBytesConfig

_Dataset: TypeAlias = Dataset | IterableDataset


class HPTTrainer(DurableGRPOTrainer):
    """
    Trainer for Hybrid Post-Training (HPT), "Towards a Unified View of Large Language Model Post-Training"
    (https://huggingface.co/papers/2509.04419).

    It takes everything that [`~trl.GRPOTrainer`] takes, plus a `demonstration` column in `train_dataset` and:

    Args:
        args ([`HPTConfig`], *optional*):
            Configuration. If `None`, a default one is used.
        gate (`Callable`, *optional*):
            Your own gate, `(solve_rate_P, step) -> (rollouts_P, demonstration_P)`, instead of what `args` names:
            (P,) float tensors of rates in [0, 1] and of weights, the same on every process. If it has `state_dict` and
            `load_state_dict`, checkpoints hold its state.
        algorithm (`Algorithm`, *optional*):
            Your own composition of [`~hpt_trl.algorithm.estimator.Estimator`]s, instead of the preset named by `args`.

    A demonstration is a string, one assistant message, or a list of messages. A prompt without one (None or empty) is
    trained on its rollouts.

    Example:
        >>> from hpt_trl.miniature.tasks import dataset
        >>> from hpt_trl.rewards import accuracy_reward
        >>> args = HPTConfig("runs/first", max_steps=1, max_completion_length=16, use_cpu=True, bf16=False)
        >>> trainer = HPTTrainer("miniature", accuracy_reward, args, train_dataset=dataset(8, 0, "train"))
        >>> trainer.gate(torch.tensor([0.0, 0.125]), 0).demonstration_P  # no rollout solved the first prompt
        tensor([1., 0.])
        >>> trainer.train()  # doctest: +SKIP
    """

    args: HPTConfig
    num_generations: int
    max_completion_length: int
    origin = Origin()
    _rewards_B_F: Tensor  # (rows on all processes, reward functions) of the last generation
    _known_rewards_B_F: Tensor | None = None  # those that TRL has not asked for yet
    _generated: Generated
    _verdict: Verdict | None = None
    _tag_names = ["trl", "hpt"]
    _name = "HPT"
    _paper = PAPER

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: HPTConfig | None = None,
        train_dataset: _Dataset | None = None,
        eval_dataset: _Dataset | DatasetDict | IterableDatasetDict | dict[str, _Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        tools: list[Callable] | None = None,
        rollout_func: RolloutFunc | None = None,
        environment_factory: EnvironmentFactory | dict[str, EnvironmentFactory] | None = None,
        *,
        gate: Gate | None = None,
        algorithm: Algorithm | None = None,
    ):
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = HPTConfig(f"{name.split('/')[-1]}-HPT")
        model = resolve_model(model) if isinstance(model, str) else model
        check_arguments(args, gate, algorithm)
        self.algorithm = algorithm or ALGORITHMS[args.algorithm]
        self.own_gate = gate or (args.build_gate() if is_dotted_path(args.gate) else None)
        self.has_own_algorithm = algorithm is not None
        self.gate = self.own_gate or args.build_gate(self.algorithm)
        self._gate_is_off = (gate is None and args.gate == "off") or not self.algorithm.demonstrations
        in_environment = environment_factory is not None
        check_before_loading(args, self.algorithm, model, train_dataset, self._gate_is_off, in_environment)
        if self.own_gate is not None:
            check_gate(self.own_gate, cast(int, args.num_generations), args.device)
        super().__init__(
            model, reward_funcs, args, train_dataset, eval_dataset=eval_dataset, processing_class=processing_class,
            reward_processing_classes=reward_processing_classes, callbacks=callbacks, optimizers=optimizers,
            quantization_config=quantization_config, peft_config=peft_config, tools=tools, rollout_func=rollout_func,
            environment_factory=environment_factory,
        )  # fmt: skip
        check_support(args, self.algorithm, self.aux_loss_enabled, self._is_vlm)
        needs_solve_rates = bool(self.algorithm.rollouts) and not (self._gate_is_off and self.algorithm.trl_rollouts)
        self._gate_column = gate_reward_index(self.reward_func_names, args.gate_reward, needs_solve_rates)
        self._warmup = SFTWarmup(args, train_dataset, eval_dataset)
        self._setup_demonstrations()
        self._setup_reporting()

    @property
    def uses_demonstrations(self) -> bool:
        """Whether a prompt can be trained on its demonstration."""
        return not self._gate_is_off

    def _setup_demonstrations(self) -> None:
        """Prepare tokenizing demonstrations and scoring them with the model."""
        options = {"chat_template": self.chat_template, "tools": self.tools or None}
        tokenizer = DemonstrationTokenizer(
            self.processing_class, self.eos_token_ids, options | cast(dict, self.chat_template_kwargs)
        )
        limits = self.args.demonstration_limit, room_of(self.model), self.args.demonstration_overflow
        self._collector = DemonstrationCollector(tokenizer, *limits, self._tokenizer.pad_token_id)
        self._needed_logps = NeededLogps()
        self._step_log = StepLog(self.accelerator.device)
        base_model = self.model.get_base_model() if is_peft_model(self.model) else self.model
        add_demonstration_head(base_model, self.args.cast_lm_head_to_fp32)

    def _setup_reporting(self) -> None:
        """Prepare what a run records about itself, and what it shows in the terminal."""
        self.gate_history = GateHistory()
        self.add_callback(GateHistoryCallback(self.gate_history, self._is_pushing, lambda: self._resumed_from))
        self.adapter = describe_adapter(self.model)  # for the card, which cannot see it once it is merged
        self._own_facts = method_facts(self)
        self._stateful = {"gate": self.own_gate, "step_log": self._step_log, "warmup": self._warmup}
        self.samples = SampleLog()
        self.add_callback(RunRecorder(self.samples, lambda: recorded_facts(self)))
        self._panel = show_progress(self, self.samples)

    def _while_training(self) -> AbstractContextManager[Any]:
        return self._panel

    def _on_train_begin(self) -> None:
        super()._on_train_begin()
        if self._resumed_from is None:
            warn_of_useless_demonstrations(self)

    def _write_own_files(self, folder: str) -> None:
        self.gate_history.write(folder)

    # Generate, score and decide. TRL shuffles rows after this: groups are complete only here.

    def _generate(self, prompts):
        generated = super()._generate(prompts)
        self._generated = Generated.of(prompts, generated)
        return generated

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._known_rewards_B_F is None:
            self._rewards_B_F = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            return self._rewards_B_F
        known_B_F, self._known_rewards_B_F = self._known_rewards_B_F, None
        return known_B_F

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        compute = super()._get_per_token_logps_and_entropies
        return self._needed_logps.call(compute, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        """Sample, score, let the gate decide per prompt, and attach the demonstrations that it chose."""
        if self.model.training and is_in_warmup(self, self._warmup):
            return warmup_batch(self, self._warmup, inputs)
        if self.model.training and not self.algorithm.rollouts:
            return self._batch_without_rollouts(inputs, self._rows)
        self._verdict, self._known_rewards_B_F = None, None
        with self._needed_logps.choosing(partial(self._choose_rows, inputs) if self._can_choose_rows() else None):
            batch = super()._generate_and_score_completions(inputs)
        if self._gate_column is None:
            self._record_samples()
            return batch
        if not self.model.training:
            self._step_log.log_solve_rates(self._metrics["eval"], groups_of(self).solve_rates())
            return batch
        verdict = self._verdict or judge(self, inputs, batch)
        solve_rate_P = verdict.groups.solve_rates()
        self._step_log.log_solve_rates(self._metrics["train"], solve_rate_P)
        verdict.apply_to(self, batch)
        self._record(inputs, verdict.decision, batch, verdict.demonstrations, solve_rate_P, self._rows)
        if not is_rollouts_only(verdict.decision.weights):
            self._collector.attach(batch, verdict.demonstrations, verdict.decision, self._rows)
        self._needed_logps.finish(batch, self._has_signal(batch), self._metrics["train"])
        return batch

    def _can_choose_rows(self) -> bool:
        """Whether only some rows need old log-probabilities. With KL, every row needs them."""
        judges = self.model.training and not self._gate_is_off and self._gate_column is not None
        return judges and self.args.skip_zero_signal_rollouts and not zero_advantage_rows_matter(self)

    def _choose_rows(self, inputs: Sequence[dict[str, Any]], batch: RolloutBatch) -> Tensor:
        """(B,) True for rollouts that will be trained on, known as soon as they are complete."""
        generated = self._generated
        generated.add_extra_fields(inputs)
        rewards_B_F = self._calculate_rewards(
            inputs, generated.prompts, generated.completions, generated.completion_ids
        )
        self._verdict = judge(self, inputs, batch)
        self._known_rewards_B_F = rewards_B_F
        # TRL has not computed advantages yet, but it is known where they will be 0.
        batch["advantages"] = self._rows.own_rows(has_advantage(self, self._verdict.groups.total_P_G)).float()
        self._verdict.apply_to(self, batch)
        return self._has_signal(batch)

    @property
    def _rows(self) -> RowIndex:
        return RowIndex(self.accelerator.process_index, self.accelerator.num_processes, self.num_generations)

    def _batch_without_rollouts(self, inputs: Sequence[Mapping[str, Any]], rows: RowIndex) -> GatedBatch:
        """A batch whose rows hold a prompt, no completion, and the demonstration of their group; it is recorded."""
        batch, demonstrations, decision = batch_of_demonstrations(self, inputs, rows)
        # Nothing was generated: there is no solve rate.
        no_rate_P = torch.full_like(decision.demonstration_advantage_P, torch.nan)
        self._record(inputs, decision, batch, demonstrations, no_rate_P, rows)
        return batch

    def _prepare_inputs(self, generation_batch):
        generated_before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is generated_before:
            return inputs
        changes_nothing = self._gate_is_off or not self.args.skip_zero_signal_rollouts
        if not is_gated(inputs) and changes_nothing and self.args.max_tokens_per_forward is None:
            # Rollouts only: TRL's own micro-batches, bitwise.
            return inputs
        batches = self._buffered_inputs
        can_skip = self.args.skip_zero_signal_rollouts or not has_rollouts(inputs)
        self._buffered_inputs = regroup(
            batches,
            [self._has_signal(batch) | (not can_skip) for batch in batches],
            self.loss_type,
            micro_batches_per_step=self.args.gradient_accumulation_steps,
            may_move=can_skip and rows_are_independent(self),
            budget=self.args.max_tokens_per_forward,
        )
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _has_signal(self, batch: RolloutBatch) -> Tensor:
        """(B,) True where a rollout can change the policy, or what another rollout does to it."""
        return has_signal(batch, self.algorithm, all_rows_matter=zero_advantage_rows_matter(self))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if return_outputs:
            # TRL rejects this with its own message.
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            self._warmup.prepare_optimizer(self.optimizer, self.state.global_step)
        if not is_forward_passes(inputs):
            # Evaluation, or a step with rollouts only.
            return self._policy_loss(model, inputs)
        rows = inputs["generated_rows"]
        losses: list[Callable[[], Tensor]] = [partial(self._rollout_loss, model, each) for each in inputs["rollouts"]]
        losses += [partial(self._demonstration_loss, model, each, rows) for each in inputs["demonstrations"]]
        return backward_each(losses, model, self.accelerator)

    def _rollout_loss(self, model: Any, rollouts: RolloutForward) -> Tensor:
        return self._policy_loss(model, rollouts) * rollouts["share"]

    def _policy_loss(self, model: Any, batch: RolloutBatch) -> Tensor:
        """TRL's loss on rollouts, or the algorithm's."""
        if self.algorithm.trl_rollouts or not self.model.training:
            return super().compute_loss(model, batch)
        logps_B_T, entropies_B_T, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].size(1),
            compute_entropy=True,
            **{name: column for name, column in batch.items() if name in IMAGE_COLUMNS},
        )
        losses_B_T, mask_B_T = rollout_losses(logps_B_T, entropies_B_T, batch, self.algorithm)
        losses_B = row_losses(losses_B_T, mask_B_T, self.loss_type, self.max_completion_length)
        return losses_B.mean() / self.current_gradient_accumulation_steps

    def _demonstration_loss(self, model: Any, batch: DemonstrationForward, generated_rows: int) -> Tensor:
        """Loss of R demonstrations, scaled to their share of the loss of the optimizer step.

        Args:
            model: the wrapped policy.
            batch: one forward pass.
            generated_rows: rows of this micro-batch, as TRL cut it.
        """
        losses = demonstration_losses(self, model, batch)
        self._step_log.add_demonstrations(losses.sums_3)
        # Trainers average gradients over processes and, since TRL scales its own loss, add them over micro-batches.
        rows = generated_rows * self.current_gradient_accumulation_steps
        scale = self.num_generations / rows
        if self.args.sft_normalization == "token":
            # HPTConfig requires one generation per optimizer step here.
            scale = self.accelerator.num_processes / batch["demonstration_tokens"].clamp(min=1.0)
        return losses.total * scale if losses.joint is None else losses.total * scale + losses.joint / rows

    def _get_grad_norm(self, model, grad_norm=None):
        self._step_log.log_optimizer_step(self._metrics["train"])
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _get_learning_rate(self):
        # For the log, before the step is counted: the scheduler does not know the factor.
        return super()._get_learning_rate() * self._warmup.rate_factor(self.state.global_step)

    def _record(
        self,
        inputs: Sequence[Mapping[str, Any]],
        decision: Decision,
        batch: RolloutBatch,
        demonstrations: Demonstrations,
        solve_rate_P: Tensor,
        rows: RowIndex,
    ) -> None:
        """Log one generation, and note it in `gate.parquet` and the samples."""
        prompt_ids = gather_object([prompt_identifier(inputs[row]) for row in rows.first_rows(len(inputs))])
        # Without padding, which comes last.
        weights = GateWeights(*(weight_P[: len(prompt_ids)] for weight_P in decision.weights))
        self._step_log.log_generation(self._metrics["train"], weights, self._has_signal(batch), demonstrations.counts)
        if self.accelerator.is_main_process:
            rates = solve_rate_P[: len(prompt_ids)].tolist()
            self.gate_history.add(self.state.global_step, prompt_ids, rates, weights)
        if has_rollouts(batch):
            self._record_samples(solve_rate_P, decision.weights, demonstrations)

    def _record_samples(
        self,
        solve_rate_P: Tensor | None = None,
        weights: GateWeights | None = None,
        demonstrations: Demonstrations | None = None,
    ) -> None:
        if self.model.training and self.accelerator.is_main_process:
            step = self.state.global_step
            texts = None if demonstrations is None else partial(demonstrations.text_of, self._rows, self._tokenizer)
            self.samples.note(latest_rollouts(self), step, self.num_generations, solve_rate_P, weights, texts)

    def _write_card(self, name: str, dataset_name: str, tags: set[str]) -> None:
        write_run_card(self, name, dataset_name, tags)
