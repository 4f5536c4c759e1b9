"""How the prompts of a run learned, in sentences."""

from collections.abc import Mapping

from hpt_trl.config import HPTConfig

_PRESETS = {
    "sft": "supervised fine-tuning: every prompt learned from its demonstration, and nothing was generated",
    "luffy": "LUFFY: each demonstration joined its prompt's answers as one more, off-policy, row of their group",
    "srft": "SRFT: likelihood and off-policy gradient of each demonstration beside the policy gradient of the answers",
    "chord": "CHORD: policy gradient of the answers and likelihood of the demonstration, mixed by a schedule",
}
_OWN_ALGORITHM = "a composition of the unified estimator's parts that was written for this run."


def describe_method(args: HPTConfig, gate: str, algorithm: str) -> str:
    """How a prompt learned, in sentences.

    Args:
        args: of the run.
        gate: name of a gate of the user's own, "off", or "" for that of `args`, which may be a dotted path.
        algorithm: name of the preset, or "" for one of the user's own.
    """
    answers = f"At every step the model answered each prompt {args.num_generations} times"
    if algorithm != "hpt":
        own = f"`{algorithm}`, a preset of the unified estimator, on the model's own answers only"
        return f"It was trained by {_PRESETS.get(algorithm, own)}." if algorithm else f"{answers}, by {_OWN_ALGORITHM}"
    if gate == "off":
        return (
            f"{answers} and learned from its own answers only (GRPO): the gate between answers and demonstrations was "
            "off, and no demonstration was used."
        )
    if gate or args.gate not in _GATES:
        return (
            f"{answers}. A gate written for this run, `{gate or args.gate}`, turned the share of right answers into "
            "the weights of those answers and of the prompt's demonstration."
        )
    return f"{answers}. {_GATES[args.gate](args)}"


def _switch(args: HPTConfig) -> str:
    def count(threshold: float) -> str:
        most = int(threshold * (args.num_generations or 0) + 1e-9)
        return "none was right" if most == 0 else f"at most {most} of them {'was' if most == 1 else 'were'} right"

    text = f"Where {count(args.gate_threshold)}, the prompt learned from its demonstration by likelihood (weight "
    text += f"{args.sft_weight:g}); "
    if args.gate_off_policy_threshold is not None:
        text += f"where {count(args.gate_off_policy_threshold)}, from it by off-policy policy gradient; "
    return text + "everywhere else from the model's own answers by policy gradient."


def _linear(args: HPTConfig) -> str:
    return (
        "A prompt's own answers weighed as much as the share of them that was right, and its demonstration the rest "
        f"(times {args.sft_weight:g})."
    )


def _table(args: HPTConfig) -> str:
    table = args.gate_table if isinstance(args.gate_table, Mapping) else {}
    rows = [f"{count} right: {', '.join(map(str, weights))}" for count, weights in table.items()]
    return f"How many were right gave the weights of answers and demonstration: {'; '.join(rows)}."


_GATES = {"switch": _switch, "linear": _linear, "table": _table}
