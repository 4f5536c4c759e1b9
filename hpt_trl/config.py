"""HPTConfig: GRPOConfig with the paper's recipe as defaults, and HPT's own knobs.

Over 300 lines, for the docstring is the reference of every knob.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

from transformers import SchedulerType
from trl import GRPOConfig

from hpt_trl.algorithm.estimator import ALGORITHMS
from hpt_trl.algorithm.gate import Gate, annealed_gate, constant_gate, named_gate
from hpt_trl.common.imports import import_callable, is_dotted_path


@dataclass
class HPTConfig(GRPOConfig):
    r"""
    Configuration of [`HPTTrainer`]: every option of [`~trl.GRPOConfig`], and sixteen of HPT's own.

    Four defaults of GRPO change, to the recipe of arXiv 2509.04419 (section 4.1 and its published scripts):
    `learning_rate` 5e-6, `lr_scheduler_type` "constant", `loss_type` "dr_grpo", `scale_rewards` "none". Its 8
    generations, temperature 1 and absent KL term are TRL's defaults already. Every other TRL option left unset means
    what it means in TRL. One of transformers changes too: `trackio_static_space_id` False, so that a push of the model
    makes no Space of the trackio charts unless one is named (`None` lets transformers name one).

    Args:
        algorithm (`str`, *optional*, defaults to `"hpt"`):
            Which of the unified estimator's presets to train by (arXiv 2509.04419, table 1). `"hpt"`, `"luffy"` and
            `"chord"` take TRL's own loss on rollouts, its clip included; `"srft"`, `"reinforce"`, `"ppo"`, `"grpo"`,
            `"dr_grpo"`, `"cispo"` and `"gspo"` the estimator's, averaged as `loss_type` "grpo" or "dr_grpo" says;
            `"sft"` generates nothing. Only `"hpt"` has a gate to set. An `Algorithm` of your own is passed to
            `HPTTrainer(algorithm=...)`.
        gate (`str`, *optional*, defaults to `"switch"`):
            How a prompt's solve rate becomes the weights of its rollouts and its demonstration: `"switch"`
            (demonstration up to `gate_threshold`, rollouts above), `"linear"` (rollouts by the solve rate,
            demonstration by the rest), `"table"` (see `gate_table`) or `"off"` (GRPO). A gate of your own is named by
            its dotted path, such as `"my_module.my_gate"`, which is imported (modules in the current directory come
            first), or passed to `HPTTrainer(gate=...)`, whose docstring describes it. Source: arXiv 2509.04419, eq. 10.
        gate_threshold (`float`, *optional*, defaults to `0.0`):
            Share of solved rollouts, in [0, 1], up to which (inclusive) the switch takes the demonstration. The paper's
            0 for Qwen; 0.25 (2 of 8) for Llama.
        gate_off_policy_threshold (`float`, *optional*):
            Second threshold of a three-way switch: above `gate_threshold` and up to here the prompt learns from its
            demonstration by off-policy policy gradient (LUFFY's shaping) instead of by likelihood. Source: the
            paper's Mix/GRPO ablation.
        gate_table (`dict` or `str`, *optional*):
            `{solved count: [rollouts, demonstration]}` or `[rollouts, demonstration, off_policy]` for every count from
            0 to `num_generations`.
        gate_reward (`str`, *optional*):
            Name of the one reward function the gate listens to. Of several it is `accuracy_reward` where that is one of
            them; else it must be given.
        gate_success_value (`float`, *optional*, defaults to `1.0`):
            A rollout solved its prompt if that reward is at least this. `None`: the solve rate is the mean reward, as
            in the paper's text; 1.0 counts successes, as in its code.
        sft_weight (`float`, *optional*, defaults to `1.0`):
            Factor on the demonstrations' loss, but for off-policy gradients. The paper's 1.0; 0.3 for
            Qwen2.5-Math-1.5B. By its reference code a demonstration counts as one rollout: 1 / `num_generations`.
        sft_normalization (`str`, *optional*, defaults to `"prompt"`):
            Denominator of the demonstrations' loss over one optimizer step on all processes. `"prompt"`: the sum of
            each demonstration's token mean over the number of all prompts, so that a demonstration weighs as much as
            its prompt's rollouts together. `"token"`: token mean over all demonstrations, nearer to the reference
            code; needs `steps_per_generation` equal to `gradient_accumulation_steps`.
        max_demonstration_length (`int`, *optional*):
            Longest demonstration in tokens, EOS included. `None`: `max_completion_length`.
        demonstration_overflow (`str`, *optional*, defaults to `"cut"`):
            What happens to a longer one: `"cut"` (its beginning, without EOS) or `"refuse"` (its prompt stays on RL).
        drop_silent_rows (`bool`, *optional*, defaults to `True`):
            In a step where the gate acts, compute only the rollouts that can move the policy. The same gradient for
            less work; entropy and clip metrics are then of those rollouts.
        max_tokens_per_forward (`int`, *optional*):
            Most tokens, prompts and padding included, that one forward with a gradient computes; a longer row goes
            alone. Bounds memory whatever `per_device_train_batch_size` is, and applies to every training step, so that
            a step is GRPO's to rounding and no longer to the bit. Log-probabilities of the old policy and of the
            reference, which hold no graph, are computed `per_device_train_batch_size` rows at a time, as in TRL.
            `None`: at most one forward of rollouts and one of demonstrations a micro-batch.
        skip_grad_norm_above (`float`, *optional*):
            Skip the optimizer step if the gradient norm (before clipping) is above this. The reference code's 80. A
            step whose norm is not finite is always skipped. DeepSpeed steps inside backward: there its own overflow
            check decides, and this option is refused.
        max_skipped_steps_in_row (`int`, *optional*, defaults to `10`):
            Stop the run, with advice, once so many optimizer steps in a row were skipped: by then nothing is learned.
            Under DeepSpeed nothing is skipped here, and steps whose norm is not finite are counted.
        reward_timeout (`float`, *optional*):
            Seconds that one call of a reward function may take before the run stops and names it. With a limit, a
            function runs in a thread of its own, where `signal.alarm` does not work (TRL's own `accuracy_reward`
            needs it). `None`: no limit, and the main thread, as in TRL.

    Example:
        >>> args = HPTConfig("runs/mine", gate_threshold=0.25, use_cpu=True, bf16=False)
        >>> args.loss_type, args.learning_rate, args.num_generations
        ('dr_grpo', 5e-06, 8)
        >>> HPTConfig("runs/mine", gate_threshold=2, use_cpu=True, bf16=False)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: gate_threshold must be in [0, 1], got 2: it is a share of solved rollouts...
    """

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "gate_table"]

    learning_rate: float = field(
        default=5e-6, metadata={"help": "Initial learning rate of AdamW. Source: arXiv 2509.04419, section 4.1."}
    )
    lr_scheduler_type: SchedulerType | str = field(
        default="constant", metadata={"help": "Learning-rate schedule. Source: the reference code."}
    )
    loss_type: str = field(
        default="dr_grpo",
        metadata={"help": "TRL's loss on rollouts. Source: arXiv 2509.04419, section 4.1 (Dr. GRPO)."},
    )
    scale_rewards: str = field(
        default="none",
        metadata={"help": "Whether TRL divides advantages by a std. Source: arXiv 2509.04419, section 4.1 (no)."},
    )

    # In transformers' order: its parser looks for None in the second place.
    trackio_static_space_id: str | None | Literal[False] = field(  # noqa: RUF036
        default=False,
        metadata={"help": "Space that a push copies trackio's charts to; False: none, None: one transformers names."},
    )

    algorithm: str = field(
        default="hpt", metadata={"help": "Preset of the unified estimator: 'hpt', 'sft', 'luffy', 'srft', 'chord', ..."}
    )
    gate: str = field(
        default="switch",
        metadata={
            "help": "From solve rate to weights: 'switch', 'linear', 'table', 'off' (GRPO), or the dotted path of a "
            "function of your own, like my_module.my_gate."
        },
    )
    gate_threshold: float = field(
        default=0.0,
        metadata={"help": "Share of solved rollouts, in [0, 1], up to which the switch takes the demonstration."},
    )
    gate_off_policy_threshold: float | None = field(
        default=None,
        metadata={"help": "Second threshold: up to here the demonstration is learned by off-policy policy gradient."},
    )
    gate_table: dict | str | None = field(
        default=None, metadata={"help": "For gate 'table': {solved count: [rollouts weight, demonstration weight]}."}
    )
    gate_reward: str | None = field(
        default=None, metadata={"help": "Name of the reward function the gate listens to; of several, accuracy_reward."}
    )
    gate_success_value: float | None = field(
        default=1.0, metadata={"help": "A rollout with at least this reward solved its prompt; none: mean reward."}
    )
    sft_weight: float = field(default=1.0, metadata={"help": "Factor on the demonstrations' loss, at least 0."})
    sft_normalization: str = field(
        default="prompt",
        metadata={"help": "Denominator of the demonstrations' loss: 'prompt' (all prompts of the step) or 'token'."},
    )
    max_demonstration_length: int | None = field(
        default=None, metadata={"help": "Longest demonstration in tokens; none: max_completion_length."}
    )
    demonstration_overflow: str = field(
        default="cut", metadata={"help": "Longer demonstrations: 'cut' (no EOS) or 'refuse' (the prompt stays on RL)."}
    )
    drop_silent_rows: bool = field(
        default=True, metadata={"help": "Where the gate acts, compute only rollouts that can move the policy."}
    )
    max_tokens_per_forward: int | None = field(
        default=None, metadata={"help": "Most tokens, padding included, that one forward computes; none: no limit."}
    )
    skip_grad_norm_above: float | None = field(
        default=None, metadata={"help": "Skip the optimizer step if the gradient norm is above this."}
    )
    max_skipped_steps_in_row: int = field(
        default=10, metadata={"help": "Stop the run once so many optimizer steps in a row were skipped."}
    )
    reward_timeout: float | None = field(
        default=None, metadata={"help": "Seconds that one call of a reward function may take; none: no limit."}
    )

    # The representation that a dataclass writes itself shows tokens.
    __repr__ = GRPOConfig.__str__

    def __getstate__(self) -> dict[str, Any]:
        # Trainer pickles its config into training_args.bin, which goes where the model goes.
        return self.__dict__ | {"hub_token": None}

    def __post_init__(self):
        super().__post_init__()
        self._check_secrets()
        self._check_algorithm()
        self._check_gate()
        self._check_demonstrations()
        self._check_faults()
        self._check_forwards()
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns=True would drop the 'demonstration' column before HPT sees it. Leave it False."
            )

    def _check_faults(self) -> None:
        if self.skip_grad_norm_above is not None and not self.skip_grad_norm_above > 0:
            raise ValueError(f"skip_grad_norm_above must be above 0, got {self.skip_grad_norm_above}: it is a norm.")
        if self.max_skipped_steps_in_row < 1:
            raise ValueError(f"max_skipped_steps_in_row must be at least 1, got {self.max_skipped_steps_in_row}.")
        if self.reward_timeout is not None and not self.reward_timeout > 0:
            raise ValueError(f"reward_timeout must be above 0 seconds, got {self.reward_timeout}. None sets no limit.")
        if self.enable_jit_checkpoint:
            raise ValueError(
                "enable_jit_checkpoint=True is not needed, and saves in the middle of a step: HPTTrainer saves a "
                "checkpoint upon SIGTERM at the end of the step, on all processes together. Unset it."
            )

    def _check_secrets(self) -> None:
        # TRL has parsed a text into a dict by now.
        secrets = [name for name in cast(dict, self.model_init_kwargs or {}) if name.endswith("token")]
        if secrets:
            raise ValueError(
                f"model_init_kwargs holds {secrets}, which trackers and training_args.bin would keep. Set the "
                "environment variable HF_TOKEN instead, or log in by `hf auth login`."
            )

    def _check_forwards(self) -> None:
        if any(part in str(self.optim).lower() for part in ("layerwise", "lomo")):
            raise ValueError(
                f"optim={self.optim!r} steps inside backward, and HPT backpropagates rollouts and demonstrations one "
                "after the other. Take its variant that is not layerwise, or another optimizer."
            )
        if self.max_tokens_per_forward is None:
            return
        if self.max_tokens_per_forward < 1:
            raise ValueError(f"max_tokens_per_forward must be at least 1 token, got {self.max_tokens_per_forward}.")
        acts = {"entropy_coef": self.entropy_coef != 0.0, "use_adaptive_entropy": self.use_adaptive_entropy}
        acts |= {"top_entropy_quantile": self.top_entropy_quantile < 1.0, "loss_type": self.loss_type == "bnpo"}
        if any(acts.values()) or not self.drop_silent_rows:
            raise ValueError(
                "max_tokens_per_forward cuts micro-batches into forwards, but some options act on a micro-batch as a "
                f"whole: {[name for name, does in acts.items() if does] or ['drop_silent_rows=False']}. Unset it, or "
                "those."
            )

    def _check_algorithm(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {sorted(ALGORITHMS)}, got {self.algorithm!r}. One of your own is passed to "
                "HPTTrainer(algorithm=...)."
            )
        has_gate_options = self.gate != "switch" or self.gate_threshold or self.gate_off_policy_threshold is not None
        if self.algorithm != "hpt" and has_gate_options:
            raise ValueError(
                f"algorithm={self.algorithm!r} has no gate to set, got gate={self.gate!r} and gate_threshold="
                f"{self.gate_threshold}. Leave the gate options at their defaults, or set algorithm='hpt'."
            )
        if self.algorithm == "chord" and self.max_steps <= 0:
            raise ValueError("algorithm='chord' anneals its mixture over the first half of max_steps: set max_steps.")

    def _check_gate(self) -> None:
        if not 0 <= self.gate_threshold <= 1:
            raise ValueError(
                f"gate_threshold must be in [0, 1], got {self.gate_threshold}: it is a share of solved rollouts. For k "
                f"of {self.num_generations} rollouts, set k / {self.num_generations}."
            )
        second = self.gate_off_policy_threshold
        if second is not None and not self.gate_threshold < second < 1:
            raise ValueError(
                f"gate_off_policy_threshold must be above gate_threshold ({self.gate_threshold}) and below 1, got "
                f"{second}: where every rollout solved the prompt, the demonstration's advantage is 0."
            )
        if self.gate != "switch" and (self.gate_threshold != 0 or second is not None):
            raise ValueError(
                f"gate={self.gate!r} has no threshold, but gate_threshold={self.gate_threshold} and "
                f"gate_off_policy_threshold={second} were given. Remove them, or set gate='switch'."
            )
        if (self.gate == "table") != (self.gate_table is not None):
            raise ValueError(
                f"gate='table' and gate_table belong together, got gate={self.gate!r} and gate_table={self.gate_table}."
            )
        self.build_gate()

    @property
    def demonstration_limit(self) -> int:
        """Longest demonstration in tokens."""
        return self.max_demonstration_length or self.max_completion_length or sys.maxsize

    def build_gate(self) -> Gate:
        """The gate these options name; one named by dotted path is imported.

        Raises:
            ValueError: for an unknown name, an incomplete table, or a path to something that cannot be called.
            ImportError: if nothing can be imported from a dotted path.
        """
        if self.algorithm == "chord":
            return partial(annealed_gate, steps=max(1, self.max_steps // 2))
        if self.algorithm != "hpt":
            preset = ALGORITHMS[self.algorithm]
            return partial(
                constant_gate, rollouts=float(bool(preset.rollouts)), demonstration=float(bool(preset.demonstrations))
            )
        if is_dotted_path(self.gate):
            return import_callable(self.gate, "gate")
        return named_gate(
            self.gate,
            threshold=self.gate_threshold,
            off_policy_threshold=self.gate_off_policy_threshold,
            # TRL has parsed a text into a dict and refused num_generations below 2 by now.
            table=cast(Mapping | None, self.gate_table),
            num_generations=cast(int, self.num_generations),
        )

    def _check_demonstrations(self) -> None:
        if not (self.sft_weight >= 0 and math.isfinite(self.sft_weight)):
            raise ValueError(f"sft_weight must be finite and at least 0, got {self.sft_weight}.")
        if self.sft_normalization not in ("prompt", "token"):
            raise ValueError(f"sft_normalization must be 'prompt' or 'token', got {self.sft_normalization!r}.")
        if self.sft_normalization == "token" and self.steps_per_generation != self.gradient_accumulation_steps:
            raise ValueError(
                "sft_normalization='token' counts the demonstrations' tokens of an optimizer step, which is known in "
                "time only if every step has a generation of its own: got steps_per_generation="
                f"{self.steps_per_generation} and gradient_accumulation_steps={self.gradient_accumulation_steps}. Make "
                "them equal, or set sft_normalization='prompt'."
            )
        if self.demonstration_overflow not in ("cut", "refuse"):
            raise ValueError(f"demonstration_overflow must be 'cut' or 'refuse', got {self.demonstration_overflow!r}.")
        if self.max_demonstration_length is not None and self.max_demonstration_length < 1:
            raise ValueError(f"max_demonstration_length must be at least 1 token, got {self.max_demonstration_length}.")
