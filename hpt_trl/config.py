"""HPTConfig: GRPOConfig with the paper's recipe as defaults and HPT's own options; its docstring is their reference."""

import json
import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from transformers import SchedulerType

from hpt_trl.algorithm.gate import Gate, named_gate
from hpt_trl.algorithm.presets import ALGORITHMS, Algorithm
from hpt_trl.common.imports import import_callable, is_dotted_path
from hpt_trl.durability.config import DurableGRPOConfig

_WARMUP_PRESET = "warmup_hpt"
_PRESETS = ", ".join([*sorted(ALGORITHMS), _WARMUP_PRESET])
# The learning rates that the search of configs/few_demonstrations.yaml found for SFT and for HPT after it: 3e-4, 1e-4.
_WARMUP_RATE = 3


# A generated representation would show tokens; the inherited one masks them.
@dataclass(repr=False)
class HPTConfig(DurableGRPOConfig):
    r"""
    Configuration of [`HPTTrainer`]: every option of [`~trl.GRPOConfig`], and twenty of HPT's own.

    Four defaults of GRPO change, to the recipe of arXiv 2509.04419 (section 4.1 and its published scripts):
    `learning_rate` 5e-6, `lr_scheduler_type` "constant", `loss_type` "dr_grpo", `scale_rewards` "none". The recipe's 8
    generations, temperature 1 and absent KL term are already TRL's defaults. Every other TRL option that is left unset
    has TRL's default. One default of transformers changes too: `trackio_static_space_id` is False, so that pushing the
    model creates no Space for the trackio charts unless you name one (`None` lets transformers name one).

    `skip_grad_norm_above`, `max_skipped_steps_in_row` and `reward_timeout` are described at
    [`~hpt_trl.durability.config.DurableGRPOConfig`].

    Args:
        algorithm (`str`, *optional*, defaults to `"hpt"`):
            Preset of the unified estimator to train with (arXiv 2509.04419, table 1). `"hpt"`, `"luffy"`, `"chord"`,
            `"chord_mu"` and `"chord_phi"` use TRL's own loss on rollouts, its clip included; `"srft"`, `"reinforce"`,
            `"ppo"`, `"grpo"`, `"dr_grpo"`, `"cispo"` and `"gspo"` use the estimator's, averaged as `loss_type` "grpo"
            or "dr_grpo" does; `"sft"` generates nothing. Only `"hpt"` has a gate to set. `"warmup_hpt"` is short for
            `"hpt"` with `sft_warmup_steps` at half of `max_steps` and `sft_warmup_learning_rate` at three times
            `learning_rate`, unless they are set. An `Algorithm` of your own is passed to `HPTTrainer(algorithm=...)`.
        gate (`str`, *optional*, defaults to `"switch"`):
            How the solve rate of a prompt becomes the weights of its rollouts and its demonstration: `"switch"`
            (demonstration up to `gate_threshold`, rollouts above), `"linear"` (the solve rate for the rollouts, the
            remainder for the demonstration), `"table"` (see `gate_table`) or `"off"` (rollouts only: GRPO). A gate of
            your own is named by its dotted path, such as `"my_module.my_gate"`, which is imported (modules in the
            current directory come first), or passed to `HPTTrainer(gate=...)`, whose docstring describes it. Source:
            arXiv 2509.04419, eq. 10.
        gate_threshold (`float`, *optional*, defaults to `0.0`):
            Solve rate, in [0, 1], up to which (inclusive) the switch selects the demonstration. The paper uses 0 for
            Qwen and 0.25 (2 of 8) for Llama.
        gate_off_policy_threshold (`float`, *optional*):
            Second threshold of a three-way switch: above `gate_threshold` and up to this solve rate the prompt is
            trained on its demonstration by off-policy policy gradient (LUFFY's shaping) instead of by likelihood.
            Source: the paper's Mix/GRPO ablation.
        gate_table (`dict` or `str`, *optional*):
            `{solved count: [rollouts, demonstration]}` or `[rollouts, demonstration, off_policy]` for every count from
            0 to `num_generations`.
        gate_reward (`str`, *optional*):
            Name of the one reward function that the gate listens to. `None`: the only one, or `accuracy_reward` if it
            is among several; otherwise it must be given.
        gate_success_value (`float`, *optional*, defaults to `1.0`):
            A rollout solved its prompt if that reward is at least this. `None`: the solve rate is the mean reward, as
            in the paper's text; 1.0 counts successes, as in its code.
        sft_weight (`float`, *optional*):
            Factor on the loss of demonstrations, except for off-policy gradients. `None`: 1 / `num_generations` with
            `algorithm="hpt"`, so that a demonstration counts as one rollout, as in the code that produced the paper's
            numbers, and 1.0 with other presets. 1.0 is the paper's formula, in which a demonstration counts as much as
            all rollouts of its prompt together.
        sft_normalization (`str`, *optional*, defaults to `"prompt"`):
            Denominator of the loss of demonstrations over one optimizer step on all processes. `"prompt"`: the sum of
            each demonstration's token mean, divided by the number of all prompts, so that a demonstration has the same
            weight as all rollouts of its prompt together. `"token"`: token mean over all demonstrations, closer to the
            reference code; needs `steps_per_generation` equal to `gradient_accumulation_steps`.
        max_demonstration_length (`int`, *optional*):
            Maximum length of a demonstration in tokens, EOS included. `None`: `max_completion_length`. It is never more
            than what the prompt leaves of the model's context.
        demonstration_overflow (`str`, *optional*, defaults to `"cut"`):
            What happens to a longer demonstration: `"cut"` (train on its beginning, without EOS) or `"refuse"` (train
            its prompt on rollouts only).
        sft_warmup_steps (`int`, *optional*, defaults to `0`):
            Maximum number of optimizer steps of SFT on demonstrations, one per prompt of the step, before the gate acts
            and anything is generated. With `gate="off"`, the run is SFT followed by GRPO. Source: arXiv 2512.11470.
        sft_warmup_learning_rate (`float`, *optional*):
            Learning rate of these steps, by which the scheduler's is scaled; SFT usually needs a higher one than RL.
            `None`: `learning_rate`.
        sft_warmup_window (`int`, *optional*, defaults to `10`):
            Optimizer steps between two measurements of the mean loss on held-out demonstrations. The warm-up ends when
            it has improved by less than 2% within one window.
        sft_warmup_holdout (`float`, *optional*, defaults to `0.1`):
            Share of the demonstrations, at most 256, that is held out of the warm-up to measure that loss if
            `eval_dataset` has none. 0: the warm-up has its maximum length, as it has with a stream.
        skip_zero_signal_rollouts (`bool`, *optional*, defaults to `True`):
            Compute only the rollouts with a non-zero gradient, unless the gate is off. The gradient is the same;
            entropy and clip metrics are then those of these rollouts. `drop_silent_rows` is its deprecated name.
        max_tokens_per_forward (`int`, *optional*):
            Maximum number of tokens, prompts and padding included, that one forward pass with a gradient computes; a
            longer row is computed alone. Bounds memory whatever `per_device_train_batch_size` is. It applies to every
            training step, so that a step with rollouts only equals GRPO's to rounding and not bitwise.
            Log-probabilities of the old policy and of the reference model, which keep no graph, are computed
            `per_device_train_batch_size` rows at a time, as in TRL. `None`: at most one forward pass of rollouts and
            one of demonstrations per micro-batch.

    Example:
        >>> args = HPTConfig("runs/mine", gate_threshold=0.25, use_cpu=True, bf16=False)
        >>> args.loss_type, args.learning_rate, args.num_generations
        ('dr_grpo', 5e-06, 8)
        >>> HPTConfig("runs/mine", gate_threshold=2, use_cpu=True, bf16=False)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: gate_threshold must be in [0, 1], got 2: it is a solve rate...
    """

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

    algorithm: str = field(default="hpt", metadata={"help": f"Preset of the unified estimator: one of {_PRESETS}."})
    gate: str = field(
        default="switch",
        metadata={
            "help": "From solve rate to weights: 'switch', 'linear', 'table', 'off' (GRPO), or the dotted path of a "
            "function of your own, like my_module.my_gate."
        },
    )
    gate_threshold: float = field(
        default=0.0,
        metadata={"help": "Solve rate, in [0, 1], up to which the switch selects the demonstration."},
    )
    gate_off_policy_threshold: float | None = field(
        default=None,
        metadata={"help": "Second threshold: up to this solve rate, off-policy policy gradient on the demonstration."},
    )
    gate_table: dict | str | None = field(
        default=None, metadata={"help": "For gate 'table': {solved count: [rollouts weight, demonstration weight]}."}
    )
    gate_reward: str | None = field(
        default=None,
        metadata={"help": "Name of the reward function the gate listens to; default: accuracy_reward."},
    )
    gate_success_value: float | None = field(
        default=1.0,
        metadata={"help": "A rollout with at least this reward solved its prompt; none: mean reward."},
    )
    sft_weight: float | None = field(
        default=None,
        metadata={
            "help": "Factor on the loss of demonstrations, at least 0; none: 1 / num_generations, one rollout's."
        },
    )
    sft_normalization: str = field(
        default="prompt",
        metadata={"help": "Denominator of the loss of demonstrations: 'prompt' (all prompts of the step) or 'token'."},
    )
    max_demonstration_length: int | None = field(
        default=None, metadata={"help": "Maximum demonstration length in tokens; none: max_completion_length."}
    )
    demonstration_overflow: str = field(
        default="cut",
        metadata={"help": "Longer demonstrations: 'cut' (no EOS) or 'refuse' (train on rollouts)."},
    )
    sft_warmup_steps: int = field(
        default=0, metadata={"help": "Maximum number of optimizer steps of SFT before the gate acts; 0: none."}
    )
    sft_warmup_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the warm-up; none: learning_rate."}
    )
    sft_warmup_window: int = field(
        default=10, metadata={"help": "Optimizer steps between two measurements of the held-out loss in the warm-up."}
    )
    sft_warmup_holdout: float = field(
        default=0.1,
        metadata={"help": "Share of demonstrations held out of the warm-up to measure the loss; 0: none."},
    )
    skip_zero_signal_rollouts: bool = field(
        default=True, metadata={"help": "Unless the gate is off, compute only rollouts with a non-zero gradient."}
    )
    drop_silent_rows: bool | None = field(default=None, metadata={"help": "Deprecated: use skip_zero_signal_rollouts."})
    max_tokens_per_forward: int | None = field(
        default=None, metadata={"help": "Maximum number of tokens, padding included, per forward pass; none: no limit."}
    )

    def __post_init__(self):
        self._read_deprecated()
        super().__post_init__()

    def _check_options(self) -> None:
        super()._check_options()
        self._expand_warmup_preset()
        self._check_algorithm()
        self._check_gate()
        self._check_demonstrations()
        self._check_warmup()
        self._check_forwards()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would drop the 'demonstration' column. Leave it False.")

    def _read_deprecated(self) -> None:
        if self.drop_silent_rows is not None:
            warnings.warn(
                "`drop_silent_rows` is deprecated and will be removed in version 0.3.0. Use "
                "`skip_zero_signal_rollouts` instead.",
                FutureWarning,
                stacklevel=4,
            )
            self.skip_zero_signal_rollouts, self.drop_silent_rows = self.drop_silent_rows, None

    def _expand_warmup_preset(self) -> None:
        if self.algorithm != _WARMUP_PRESET:
            return
        if self.max_steps <= 0 and not self.sft_warmup_steps:
            raise ValueError(
                f"algorithm={self.algorithm!r} spends at most half of max_steps on its SFT warm-up, got max_steps="
                f"{self.max_steps}: set it, or sft_warmup_steps."
            )
        self.algorithm = "hpt"
        self.sft_warmup_steps = self.sft_warmup_steps or max(1, self.max_steps // 2)
        if self.sft_warmup_learning_rate is None:
            self.sft_warmup_learning_rate = _WARMUP_RATE * self.learning_rate

    def _check_forwards(self) -> None:
        if any(part in str(self.optim).lower() for part in ("layerwise", "lomo")):
            raise ValueError(
                f"optim={self.optim!r} steps inside backward, and HPT backpropagates rollouts and demonstrations one "
                "after the other. Use its variant that is not layerwise, or another optimizer."
            )
        if self.max_tokens_per_forward is None:
            return
        if self.max_tokens_per_forward < 1:
            raise ValueError(f"max_tokens_per_forward must be at least 1 token, got {self.max_tokens_per_forward}.")
        needs_micro_batch = {
            "entropy_coef": self.entropy_coef != 0.0,
            "use_adaptive_entropy": self.use_adaptive_entropy,
            "top_entropy_quantile": self.top_entropy_quantile < 1.0,
            "loss_type": self.loss_type == "bnpo",
            "skip_zero_signal_rollouts": not self.skip_zero_signal_rollouts,
        }
        offending = {name: getattr(self, name) for name, is_set in needs_micro_batch.items() if is_set}
        if offending:
            raise ValueError(
                "max_tokens_per_forward splits micro-batches into several forward passes, but these options need "
                f"complete micro-batches: {offending}. Unset it, or them."
            )

    def _check_warmup(self) -> None:
        rate = self.sft_warmup_learning_rate
        if rate is not None and not (rate > 0 and math.isfinite(rate) and self.learning_rate > 0):
            raise ValueError(
                f"sft_warmup_learning_rate and learning_rate must be finite and above 0, got {rate} and "
                f"{self.learning_rate}: the scheduler's rate is scaled by their ratio."
            )
        if self.sft_warmup_steps < 0 or self.sft_warmup_window < 1:
            raise ValueError(
                "sft_warmup_steps must be at least 0 and sft_warmup_window at least 1, got "
                f"{self.sft_warmup_steps} and {self.sft_warmup_window}."
            )
        if not 0 <= self.sft_warmup_holdout < 1:
            raise ValueError(f"sft_warmup_holdout must be in [0, 1), got {self.sft_warmup_holdout}: it is a fraction.")

    def _check_algorithm(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm must be one of {sorted([*ALGORITHMS, _WARMUP_PRESET])}, got {self.algorithm!r}. Pass your "
                "own to HPTTrainer(algorithm=...)."
            )
        if ALGORITHMS[self.algorithm].prescribed_gate and self.sets_gate_options:
            raise ValueError(
                f"algorithm={self.algorithm!r} has no gate to set, got gate={self.gate!r} and gate_threshold="
                f"{self.gate_threshold}. Leave the gate options at their defaults, or set algorithm='hpt'."
            )

    def _check_gate(self) -> None:
        if self.gate_success_value is not None and not math.isfinite(self.gate_success_value):
            raise ValueError(
                "gate_success_value must be finite or None (solve rates are mean rewards), got "
                f"{self.gate_success_value}."
            )
        if not 0 <= self.gate_threshold <= 1:
            raise ValueError(
                f"gate_threshold must be in [0, 1], got {self.gate_threshold}: it is a solve rate. For k "
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
        if isinstance(self.gate_table, str):
            self.gate_table = _parsed_table(self.gate_table)
        if (self.gate == "table") != (self.gate_table is not None):
            raise ValueError(
                f"gate='table' and gate_table belong together, got gate={self.gate!r} and gate_table={self.gate_table}."
            )
        self.build_gate()

    @property
    def demonstration_limit(self) -> int:
        """Maximum length of a demonstration in tokens."""
        return self.max_demonstration_length or self.max_completion_length or sys.maxsize

    @property
    def sets_gate_options(self) -> bool:
        """Whether an option of the built-in gates differs from its default."""
        is_named = self.gate != "switch" and not is_dotted_path(self.gate)
        return bool(is_named or self.gate_threshold or self.gate_off_policy_threshold is not None)

    def build_gate(self, algorithm: Algorithm | None = None) -> Gate:
        """The gate that these options name, or the one that the algorithm prescribes.

        Args:
            algorithm: whose gate; None: the preset that `algorithm` names.

        Raises:
            ValueError: for an unknown name, an incomplete table, a schedule without its length, or a dotted path to
                something that cannot be called.
            ImportError: if nothing can be imported from a dotted path.
        """
        if is_dotted_path(self.gate):
            return import_callable(self.gate, "gate")
        prescribed = (algorithm or ALGORITHMS[self.algorithm]).prescribed_gate
        if prescribed is not None:
            return prescribed(self)
        return named_gate(
            self.gate,
            threshold=self.gate_threshold,
            off_policy_threshold=self.gate_off_policy_threshold,
            table=cast(Mapping | None, self.gate_table),
            # TRL has rejected num_generations below 2 by now.
            num_generations=cast(int, self.num_generations),
        )

    def _check_demonstrations(self) -> None:
        if self.sft_weight is None:
            # TRL has rejected num_generations below 2 by now.
            is_gated = ALGORITHMS[self.algorithm].prescribed_gate is None
            self.sft_weight = 1 / cast(int, self.num_generations) if is_gated else 1.0
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


def _parsed_table(text: str) -> dict:
    """`gate_table` from a command line."""
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"gate_table must be a JSON object, got {text!r}: {error}.") from None
    if not isinstance(table, dict) or not all(str(count).isdecimal() for count in table):
        raise ValueError(f"gate_table must be a JSON object whose keys are counts of solved rollouts, got {text!r}.")
    return table
