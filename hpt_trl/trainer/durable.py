"""DurableGRPOTrainer: GRPOTrainer whose runs can be killed, resumed exactly, stopped by a signal and pushed safely.

Gates and demonstrations are its subclass's. Alone it trains bitwise as GRPOTrainer does, except that it skips optimizer
steps whose gradient norm is not finite.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from trl.trainer.utils import get_config_model_id

from hpt_trl.common.errors import RunError
from hpt_trl.common.logs import get_logger
from hpt_trl.common.models import reporting_load_errors
from hpt_trl.common.overriding import overriding
from hpt_trl.data.usable_rows import UsableRows, only_usable
from hpt_trl.durability.checkpoints import (
    EpochEndCallback,
    TrainBeginCallback,
    load_reference,
    load_state,
    reporting_read_errors,
    reporting_write_errors,
    save_reference,
    save_state,
    stream_position,
    trainer_state,
)
from hpt_trl.durability.config import DurableGRPOConfig
from hpt_trl.durability.divergence import Divergence, check_weights, rescale_learning_rates, weights_fault
from hpt_trl.durability.faults import TerminationCallback, explaining_lost_peer, first_fault
from hpt_trl.durability.identity import Identity, changed_since, claim_folder, data_fingerprint, folder_lock, identify
from hpt_trl.durability.markers import clear_checkpoint, mark_complete
from hpt_trl.durability.reward_guard import RewardGuard
from hpt_trl.durability.state_of_parts import restore_states, states, warn_of_lost_state
from hpt_trl.monitoring.run_log import StepClock
from hpt_trl.monitoring.samples import writable
from hpt_trl.monitoring.traps import TrapWarnings
from hpt_trl.trainer.checks import check_launch, check_prompts, check_tokenizer, room_of, too_long
from hpt_trl.trainer.data_checks import check_rewards
from hpt_trl.trainer.opened_prompts import with_opened_thinking
from hpt_trl.trainer.pushing import PushingGRPOTrainer
from hpt_trl.trainer.trl_hooks import (
    check_attributes,
    reset_run_state,
    restore_run_state,
    run_state,
    weights_are_sharded,
)

logger = get_logger(__name__)


class DurableGRPOTrainer(PushingGRPOTrainer):
    """
    [`~trl.GRPOTrainer`] that saves and resumes exactly, stops at the end of a step on SIGTERM or Ctrl-C, skips steps
    whose gradient is not finite, ends with one paragraph when a reward function fails, and pushes only complete
    checkpoints.

    Args:
        model, reward_funcs, args, train_dataset, options:
            As in [`~trl.GRPOTrainer`]; `args` is a [`~hpt_trl.durability.config.DurableGRPOConfig`].

    A subclass adds files to checkpoints by `_write_own_files`, and writes its own card by `_write_card`.
    """

    args: DurableGRPOConfig
    model: Any
    identity: Identity | None = None  # of the run, once it has begun
    _stateful: Mapping[str, Any] = {}  # parts of a subclass whose state belongs to a checkpoint, by name
    _own_facts: Mapping[str, Any] = {}  # what a subclass adds to what must not change within a run
    _resumed_from: str | None = None
    _began: float  # seconds since the epoch, moved back by the time trained before a resume
    _seconds_before = 0.0
    _train_sampler: Iterable[int] | None = None

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: DurableGRPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        **options: Any,
    ):
        self._row_filters: list[UsableRows] = []
        has_environments = options.get("environment_factory") is not None
        train_dataset = only_usable(train_dataset, self._row_filters, needs_prompt=not has_environments)
        if options.get("rollout_func") is None:  # which may return further columns
            check_rewards(reward_funcs, train_dataset, options.get("eval_dataset"), has_environments)
        with reporting_load_errors(model):
            super().__init__(model, reward_funcs, args, train_dataset, **options)
        check_attributes(self)
        check_weights(self.model)
        self._divergence = Divergence(self.args)
        self._clock = StepClock()
        self._termination = TerminationCallback()
        self._reward_guard = RewardGuard(self.args.reward_timeout)
        self._guarded_rewards = [
            function if isinstance(function, nn.Module) else self._reward_guard.wrap(cast(Callable, function), name)
            for function, name in zip(self.reward_funcs, self.reward_func_names)
        ]
        begin = TrainBeginCallback(self._on_train_begin)
        for callback in (begin, self._termination, EpochEndCallback(), TrapWarnings()):
            self.add_callback(callback)
        check_launch(self.args, self.accelerator)
        check_tokenizer(self.processing_class, self.model.config, train_dataset)
        self._check_prompts(train_dataset)

    def _write_own_files(self, folder: str) -> None:
        """Write a subclass's files into a checkpoint, on the main process."""

    def _identity(self) -> Identity:
        """What makes this run this run. Every process must call it."""
        fixed = {
            "model": Path(get_config_model_id(self.model.config)).name,
            "seed": self.args.seed,
            "data_seed": self.args.data_seed,
            "data": data_fingerprint(self.train_dataset),
            **self._own_facts,
        }
        identity = identify(fixed, self.args.to_dict() | {"reward_functions": list(self.reward_func_names)})
        # The same trainer may train again.
        return identity if self.identity is None else replace(identity, run_id=self.identity.run_id)

    def _while_training(self) -> AbstractContextManager[Any]:
        """What a subclass wraps around training."""
        return nullcontext()

    def _check_prompts(self, dataset: Dataset | IterableDataset | None) -> None:
        """Reject prompts that leave no room for an answer, in data that can be searched."""
        columns = set(dataset.column_names) if isinstance(dataset, Dataset) else set()
        if "prompt" not in columns or columns & {"image", "images"} or self.environment_factories is not None:
            return
        lengths_of = super()._tokenize_prompts
        warning = check_prompts(
            cast(Dataset, dataset),
            lambda prompts: [len(ids) for ids in lengths_of(prompts)[0]],
            room_of(self.model),
            self.max_completion_length or 0,
        )
        if warning is not None:
            logger.warning(warning)

    def _tokenize_prompts(self, prompts):
        tokenized = super()._tokenize_prompts(prompts)
        # Before anything is generated, and on every process: the prompt may be on one of them only.
        lengths = [len(ids) for ids in tokenized[0]]
        fault = first_fault(
            too_long(lengths, room_of(self.model))
            or (None if all(lengths) else "a prompt is empty. Remove such rows from the data.")
        )
        if fault is not None:
            raise RunError(f"At step {self.state.global_step}, {fault}")
        return tokenized

    def _generate(self, *args, **kwargs):
        self._divergence.raise_if_not_finite(self.model, self.state.global_step)
        sampling = self._divergence.reporting_bad_probabilities(self.state)
        with self._clock.measure("generation", self.model.training), sampling:
            return super()._generate(*args, **kwargs)

    def _generate_single_turn(self, *args, **kwargs):
        by_other_means = self.use_vllm or self.use_transformers_continuous_batching or weights_are_sharded(self)
        # Autocast wraps the forward of peft's model, whose `generate` calls its base model's.
        if by_other_means or is_peft_model(self.model):
            return super()._generate_single_turn(*args, **kwargs)
        # Every forward pass has its own autocast context, which casts all weights again for each token. Within one
        # context for the complete generation they are cast once: the same numbers, for a second copy of the weights.
        with self.accelerator.autocast():
            return super()._generate_single_turn(*args, **kwargs)

    def _log_completion_extra(self, column, values):
        super()._log_completion_extra(column, writable(values))

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        with self._clock.measure("verdicts", self.model.training), overriding(self, reward_funcs=self._guarded_rewards):
            rows = with_opened_thinking(self, inputs, prompts)
            rewards_B_F = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        self._reward_guard.raise_fault(self.state.global_step)
        return rewards_B_F

    def _get_grad_norm(self, model, grad_norm=None):
        """Gradient norm of the optimizer step, which is skipped where the norm is bad; logs, and stops a stuck run."""
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        metrics = self._metrics["train"]
        for part, seconds in self._clock.take().items():
            metrics[f"time/{part}"].append(seconds)
        norm = float(grad_norm or 0.0)
        is_bad = self._divergence.count(norm)
        # DeepSpeed's engine has stepped inside backward: nothing is left to skip.
        if not self.is_deepspeed_enabled:
            if is_bad:
                # Without gradients the optimizer changes neither parameters nor its own state.
                model.zero_grad(set_to_none=True)
                self._divergence.skipped += 1
            metrics["hpt/skipped_steps"] = [float(self._divergence.skipped)]
        self._divergence.raise_if_stuck(norm, self.state.global_step)
        return grad_norm

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """
        Train, as [`~transformers.Trainer`] does.

        A run that is resumed from a checkpoint of its own, on the same number of processes, continues exactly as if it
        had never been interrupted, provided that transformers generates. On SIGTERM or Ctrl-C it saves a checkpoint
        after the step and ends the process with exit code 143 or 130; a second Ctrl-C ends it immediately.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                Folder of a checkpoint; `True` for the newest complete one in `output_dir`; `"auto"` for the same, or a
                fresh start where there is none.
            trial, ignore_keys_for_eval (*optional*):
                As in [`~transformers.Trainer`].

        Returns:
            `TrainOutput`: steps done, and mean loss and times of the complete run, including what came before a resume.

        Raises:
            RunError: for faults that the user can fix, such as an incomplete checkpoint; the message says how.
        """
        folder = Path(str(self.args.output_dir))
        with folder_lock(folder), self._termination.listening(), explaining_lost_peer():
            self._resumed_from, self.identity = claim_folder(
                self._identity(), resume_from_checkpoint, folder, self.args.overwrite_output_dir
            )
            if self._resumed_from is not None:
                trainer_state(Path(self._resumed_from))  # transformers' error would not name the checkpoint
            with self._while_training():
                output = super().train(self._resumed_from, trial, ignore_keys_for_eval)
        dropped = "".join(f" Dropped rows of the stream: {rows}." for rows in self._row_filters if rows.dropped)
        if self.state.global_step == 0 < self.state.max_steps:
            raise RunError(
                "No step was made: the training data has fewer rows than one generation needs "
                f"({self.args.generation_batch_size} rollouts, {self.args.num_generations} per row), or its stream is "
                f"empty. Check dataset_name and its filters, or lower the batch size.{dropped}"
            )
        if dropped:
            logger.warning(dropped.strip())
        self._divergence.raise_if_not_finite(self.model, self.state.global_step)
        if self._termination.has_stopped:
            raise SystemExit(self._termination.exit_code)
        self._divergence.rotate_proven()
        return output

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        has_collectives = self.is_deepspeed_enabled or self.is_fsdp_enabled or self.state.best_global_step
        diverged = weights_fault(self.model)
        with reporting_write_errors(folder, together=True):
            if self.accelerator.is_local_main_process:
                clear_checkpoint(folder)
        with reporting_write_errors(folder, together=not has_collectives):
            # transformers would delete older checkpoints before this one is complete. It may do so with
            # `save_only_model`, whose checkpoints cannot be resumed from.
            limit = self.args.save_total_limit if self.args.save_only_model and diverged is None else None
            with overriding(self.args, save_total_limit=limit):
                super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if not self.args.save_only_model:
            with reporting_write_errors(folder, together=True):
                if self.args.should_save:
                    mark_complete(folder, diverged)
            if self.args.should_save:
                self._divergence.rotate_after(folder, self.state.global_step, self.state.best_model_checkpoint)
        self._push_saved(diverged)

    def _save_rng_state(self, output_dir):
        """Save the state of the generators and everything else that transformers does not save."""
        super()._save_rng_state(output_dir)
        state = {
            "layout": self._layout(),
            "seconds": time.time() - self._began,
            "parts": states(self._stateful),
            **self._divergence.state_dict(),
        }
        save_state(Path(output_dir), self.args.process_index, state | run_state(self))
        reference = self._moving_reference()
        if reference is not None and self.args.should_save:
            save_reference(Path(output_dir), reference)
        if self.accelerator.is_main_process:
            cast(Identity, self.identity).write(Path(output_dir))
            self._write_own_files(output_dir)

    def _layout(self) -> dict[str, int]:
        """What the rollouts that are left to train on depend on."""
        batches = ("steps_per_generation", "gradient_accumulation_steps", "per_device_train_batch_size")
        names = (*batches, "num_iterations", "num_generations")
        return {name: getattr(self.args, name) for name in names} | {"processes": self.accelerator.num_processes}

    def _moving_reference(self) -> nn.Module | None:
        """The reference model of KL if it follows the policy (`sync_ref_model`) and is complete on this process."""
        if not self.args.sync_ref_model or weights_are_sharded(self):
            return None
        return self.accelerator.unwrap_model(self.ref_model)

    def _on_train_begin(self) -> None:
        """Restore the state from the checkpoint that the run is resumed from."""
        check_attributes(self, is_training=True)
        self._seconds_before = 0.0
        warn_of_lost_state(self._stateful)
        if self._resumed_from is not None:
            self._restore_from(Path(self._resumed_from))
            if self.state.global_step >= self.state.max_steps:
                logger.warning(
                    f"Already finished: {self._resumed_from} is of step {self.state.global_step}, and max_steps is "
                    f"{self.state.max_steps}. Nothing is trained; raise max_steps or num_train_epochs to train on."
                )
        self._began = time.time() - self._seconds_before

    def _restore_from(self, checkpoint: Path) -> None:
        if self._train_sampler is not None:
            # TRL's sampler draws the order of each epoch from a generator of its own, which nobody saves.
            for _ in range(int(self.state.epoch or 0)):
                next(iter(self._train_sampler))
        reset_run_state(self)
        if self.args.sync_ref_model:
            load_reference(checkpoint, self._moving_reference())
        changed = changed_since(checkpoint, cast(Identity, self.identity))
        before, now = changed.get("learning_rate", (None, None))
        if before and now is not None:
            rescale_learning_rates(self.optimizer, self.lr_scheduler, now / before)
        state = load_state(checkpoint, self.args.process_index, self._layout(), self.accelerator.device)
        if state is not None:
            restore_run_state(self, state)
            self._divergence.restore(state, is_changed=bool(changed))
            self._seconds_before = state["seconds"]
            restore_states(self._stateful, state.get("parts", {}))

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with reporting_read_errors(Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint):
        with reporting_read_errors(Path(str(checkpoint))):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint):
        with reporting_read_errors(Path(str(checkpoint))):
            super()._load_rng_state(checkpoint)

    def _evaluate(self, trial, ignore_keys_for_eval, skip_scheduler=False):
        if skip_scheduler and self._resumed_from is not None:
            return {}  # `eval_on_start`, which the run has done when it started
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        if self._resumed_from is not None and self.args.dataloader_persistent_workers:
            # The run has drawn a seed for its workers when it started, and none since.
            loader.generator = torch.Generator().manual_seed(self.args.seed)
        return loader

    def _get_train_sampler(self, dataset=None):
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _init_training_state(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
    ):
        position = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None or not isinstance(self.train_dataset, IterableDataset):
            return position
        # transformers counts all steps on a stream as one epoch, and would read past its end.
        epoch, batches = stream_position(Path(resume_from_checkpoint), self.args.gradient_accumulation_steps)
        return epoch, 0 if self.args.ignore_data_skip else batches

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self.state.global_step >= self.state.max_steps:
            # Resumed from the last checkpoint, transformers would make one step too many.
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _finalize_training(self, trial, num_train_samples, start_time):
        self._finish_current_push()
        # A stopped run is not over: transformers would load its best model and, at a limit of one, keep that only.
        options = {"load_best_model_at_end": False, "save_total_limit": None} if self._termination.has_stopped else {}
        with overriding(self.args, **options):
            return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)
