"""DurableGRPOConfig: GRPOConfig, and how a run handles faults."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers.utils import is_torch_xla_available
from trl import GRPOConfig

from hpt_trl.common.masking import mask_tokens, masked

MAX_LEARNING_RATE = 1e30  # an optimizer's step size is a multiple of it
MAX_TIMEOUT = 1e6  # seconds; the system's clocks do not take any number


@dataclass
class DurableGRPOConfig(GRPOConfig):
    r"""
    Configuration of [`~hpt_trl.trainer.durable.DurableGRPOTrainer`]: every option of [`~trl.GRPOConfig`], and how a run
    handles faults.

    Args:
        skip_grad_norm_above (`float`, *optional*):
            Skip the optimizer step if the gradient norm (before clipping) is above this. The reference code uses 80. A
            step whose norm is not finite is always skipped. DeepSpeed steps inside backward: there its own overflow
            check decides, and this option is rejected.
        max_skipped_steps_in_row (`int`, *optional*, defaults to `10`):
            Stop the run, with advice, after this many consecutive skipped optimizer steps: training has stopped making
            progress by then. Under DeepSpeed nothing is skipped here, and steps whose norm is not finite are counted.
        reward_timeout (`float`, *optional*):
            Seconds that one call of a reward function may take before the run stops and names it. With a limit, each
            function runs in a process of its own on every rank, because nothing else can end a slow regular expression
            or a blocked event loop. The function and its arguments must be picklable; its state stays in its process.
            `None`: no limit, and the process of the run, as in TRL.
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Where `output_dir` holds another run, move its files to a folder beside it and start from scratch. Without
            it such a start is refused.
    """

    # In transformers' order: its parser looks for None in the second place.
    trackio_static_space_id: str | None | Literal[False] = field(  # noqa: RUF036
        default=False,
        metadata={
            "help": "Space that a push copies trackio's charts to; False: none, None: one that transformers names."
        },
    )
    skip_grad_norm_above: float | None = field(
        default=None, metadata={"help": "Skip the optimizer step if the gradient norm is above this."}
    )
    max_skipped_steps_in_row: int = field(
        default=10, metadata={"help": "Stop the run after this many consecutive skipped optimizer steps."}
    )
    reward_timeout: float | None = field(
        default=None, metadata={"help": "Seconds that one call of a reward function may take; none: no limit."}
    )

    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Move another run in output_dir to a folder beside it, and start from scratch."},
    )

    def __str__(self) -> str:
        # transformers hides only options that are named as tokens.
        return mask_tokens(super().__str__())

    # The representation that a dataclass writes itself shows tokens.
    __repr__ = __str__

    def __getstate__(self) -> dict[str, Any]:
        # Trainer pickles its config into training_args.bin, which is pushed with the model.
        return self.__dict__ | {"hub_token": None}

    def __post_init__(self):
        if self.num_generations is not None and not self.num_generations >= 1:
            # TRL divides by it before it looks at it.
            raise ValueError(f"num_generations must be at least 2, got {self.num_generations}.")
        # Everything else is checked first, as if the run were for a CPU.
        lacks_gpu = self._lacks_gpu()
        self.use_cpu = self.use_cpu or lacks_gpu
        super().__post_init__()
        self._check_options()
        if lacks_gpu:
            raise ValueError(
                "There is no GPU on this machine. To train on the CPU, set --use_cpu true on the command line, "
                "use_cpu: true in the config file, or use_cpu=True in Python."
            )

    def _lacks_gpu(self) -> bool:
        """Whether transformers will reject bfloat16, which is TRL's default, because there is no accelerator."""
        uses_bf16 = self.bf16_full_eval or (not self.fp16 if self.bf16 is None else self.bf16)
        has_accelerator = torch.accelerator.is_available() or is_torch_xla_available()
        return uses_bf16 and not self.use_cpu and not has_accelerator

    def _check_options(self) -> None:
        """Reject values that cannot be trained with; a subclass adds its own."""
        self._check_secrets()
        self._check_faults()

    def _check_secrets(self) -> None:
        # TRL has parsed a text into a dict by now.
        options = self.model_init_kwargs if isinstance(self.model_init_kwargs, dict) else {}
        secrets = [name for name, value in options.items() if name.endswith("token") or masked(value) != value]
        if secrets:
            raise ValueError(
                f"model_init_kwargs holds {secrets}, secrets which trackers and training_args.bin would keep. Set "
                "the environment variables HF_TOKEN, HTTPS_PROXY and HTTP_PROXY instead, or use `hf auth login`."
            )

    def _check_faults(self) -> None:
        if not 0 <= self.learning_rate <= MAX_LEARNING_RATE:
            raise ValueError(
                f"learning_rate must be at least 0 and at most {MAX_LEARNING_RATE:g}, got {self.learning_rate}: larger "
                "steps do not fit in float32."
            )
        if self.skip_grad_norm_above is not None and not self.skip_grad_norm_above > 0:
            raise ValueError(f"skip_grad_norm_above must be above 0, got {self.skip_grad_norm_above}: it is a norm.")
        if not self.max_skipped_steps_in_row >= 1:
            raise ValueError(f"max_skipped_steps_in_row must be at least 1, got {self.max_skipped_steps_in_row}.")
        if self.reward_timeout is not None and not 0 < self.reward_timeout <= MAX_TIMEOUT:
            raise ValueError(
                f"reward_timeout must be above 0 and at most {MAX_TIMEOUT:g} seconds, got {self.reward_timeout}. None "
                "sets no limit."
            )
        if self.enable_jit_checkpoint:
            raise ValueError(
                "enable_jit_checkpoint=True is not needed, and it saves in the middle of a step: on SIGTERM this "
                "trainer saves a checkpoint at the end of the step, on all processes together. Unset it."
            )
