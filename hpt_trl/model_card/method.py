"""Describes, in sentences, how a run trained on its prompts."""

from collections.abc import Mapping

from hpt_trl.algorithm.presets import ALGORITHMS
from hpt_trl.common.escaping import code_span
from hpt_trl.config import HPTConfig

_PRESETS = {
    "sft": "supervised fine-tuning: every prompt was trained on its demonstration, and nothing was generated",
    "luffy": "LUFFY: each demonstration was added to the group of its prompt's rollouts as one off-policy row",
    "srft": "SRFT: the SFT loss and an off-policy loss on each demonstration, added to the policy gradient of the "
    "rollouts",
    "chord": "CHORD: the policy gradient of the rollouts and the SFT loss on the demonstrations, weighted per token "
    "and mixed by a schedule",
    "chord_mu": "CHORD-mu: the policy gradient of the rollouts and the SFT loss on the demonstrations, mixed by a "
    "schedule",
    "chord_phi": "CHORD-phi: the policy gradient of the rollouts and, with the fixed share 0.1, the SFT loss on the "
    "demonstrations, weighted per token",
}
_ROLLOUTS_ONLY = "a preset of the unified estimator, on the model's own rollouts only"
_REGISTERED = "a registered composition of the unified estimator's parts"
_CUSTOM_ALGORITHM = "a custom composition of the unified estimator's parts"


def describe_method(args: HPTConfig, gate: str, algorithm: str) -> str:
    """Describe in sentences what each prompt was trained on.

    Args:
        args: configuration of the run.
        gate: name of the user's own gate, "off", or "" for the gate of `args`, which may be a dotted path.
        algorithm: name of the preset, or "" for the user's own algorithm.
    """
    sampling = f"At every step, the model sampled {args.num_generations} rollouts per prompt"
    if not algorithm:
        return f"{sampling} and was trained with {_CUSTOM_ALGORITHM}."
    if algorithm != "hpt":
        kind = _REGISTERED if ALGORITHMS[algorithm].demonstrations else _ROLLOUTS_ONLY
        return f"It was trained with {_PRESETS.get(algorithm, f'{code_span(algorithm)}, {kind}')}.{_warmup(args)}"
    if gate == "off":
        used = _warmup(args) or " The gate was off, and no demonstration was used."
        return f"{sampling} and was trained on them only (GRPO).{used}"
    if gate or args.gate not in _GATES:
        return (
            f"{sampling}. A custom gate, {code_span(gate or args.gate)}, mapped the solve rate of each prompt to the "
            f"loss weights of its rollouts and of its demonstration.{_warmup(args)}"
        )
    return f"{sampling}. {_GATES[args.gate](args)}{_warmup(args)}"


def _warmup(args: HPTConfig) -> str:
    if not args.sft_warmup_steps:
        return ""
    return (
        " Before that, it was trained on demonstrations only (SFT), for at most "
        f"{args.sft_warmup_steps} optimizer steps."
    )


def _switch(args: HPTConfig) -> str:
    text = (
        f"If {_condition(args, args.gate_threshold)}, the model was trained on the demonstration with the SFT loss "
        f"(weight {args.sft_weight:g}); "
    )
    if args.gate_off_policy_threshold is not None:
        condition = _condition(args, args.gate_off_policy_threshold)
        text += f"if {condition}, on the demonstration with an off-policy policy gradient; "
    return text + "otherwise on the rollouts with the policy gradient."


def _condition(args: HPTConfig, threshold: float) -> str:
    most = int(threshold * (args.num_generations or 0) + 1e-9)
    if most == 0:
        return "none of them was correct"
    return f"at most {most} of them {'was' if most == 1 else 'were'} correct"


def _linear(args: HPTConfig) -> str:
    return (
        "The weight of a prompt's rollouts was its solve rate s, and the weight of its demonstration was "
        f"{args.sft_weight:g} times (1 - s)."
    )


def _table(args: HPTConfig) -> str:
    table = args.gate_table if isinstance(args.gate_table, Mapping) else {}
    rows = [f"{count} correct: {', '.join(map(str, weights))}" for count, weights in table.items()]
    return f"The number of correct rollouts set the weights of rollouts and demonstration: {'; '.join(rows)}."


_GATES = {"switch": _switch, "linear": _linear, "table": _table}
