from typing import NamedTuple


class Mutation(NamedTuple):
    file: str
    old: str
    new: str
    tests: str


G, E = "hpt_trl/algorithm/gate.py", "hpt_trl/algorithm/estimator.py"
TG, TE = "tests/algorithm/test_gate.py", "tests/algorithm/test_estimator.py"
H = "hpt_trl/trainer/hpt.py"
TA = "tests/trainer/test_algorithms.py -k "
RP = "hpt_trl/trainer/row_packing.py"
D = "hpt_trl/trainer/demonstrations.py"
TD = "tests/trainer/test_demonstrations.py"
CK = "hpt_trl/durability/checkpoints.py"
TR = "tests/durability/test_resume.py -k "
MUTATIONS = [
    Mutation(G, "(solve_rate_P.nan_to_num() * last).round()", "(solve_rate_P.nan_to_num() * last)", TG),
    Mutation(G, " and not weights.off_policy_P.any()", "", TG),
    Mutation(
        G, " and not weights.off_policy_P.any()", "", "tests/trainer/test_demonstration_loss.py -k off_policy_weight"
    ),
    Mutation(E, "logps_B_T.float() if is_half else logps_B_T", "logps_B_T", TE),
    Mutation(E, "max_ratio: float = 1.2", "max_ratio: float = 1.3", TE),
    Mutation(E, "epsilon_low=3e-4", "epsilon_low=4e-4", TE),
    Mutation(E, "epsilon_high=4e-4", "epsilon_high=3e-4", TE),
    Mutation(E, "LUFFY_SHAPE = 0.1", "LUFFY_SHAPE = 0.2", TE),
    Mutation(RP, "(left + right) > budget", "(left + right) >= budget", "tests/trainer/test_row_packing.py"),
    Mutation(RP, '    "tool_mask",\n', "", "tests/trainer/test_row_packing.py"),
    Mutation(
        H,
        'inputs["completion_mask"] * inputs.get("tool_mask", 1)',
        'inputs["completion_mask"]',
        TA + "outputs_of_tools",
    ),
    Mutation(H, "self._pending_extra_logs.clear()", "pass", TA + "what_rewards_log"),
    Mutation(H, "self._pending_metrics.clear()", "pass", TA + "what_rewards_log"),
    Mutation(H, 'scale=self.args.scale_rewards == "group"', "scale=False", TA + "joint_groups"),
    Mutation(
        H,
        ' & inputs["completion_mask"].any(dim=1)',
        "",
        "tests/trainer/test_algorithm_rules.py -k truncated_completions",
    ),
    Mutation(CK, "all(step in each", "any(step in each", TR + "another_process"),
    Mutation(
        CK,
        "isinstance(error, RunError) or is_lost_connection(error)",
        "is_lost_connection(error)",
        TR + "explain_themselves",
    ),
    Mutation(
        CK,
        "isinstance(error, RunError) or is_lost_connection(error)",
        "isinstance(error, RunError)",
        TR + "explain_themselves",
    ),
    Mutation(D, "sort_keys=True, ", "", TD),
    Mutation(D, "(TemplateError, TypeError)", "TypeError", TD),
    Mutation(D, "(TemplateError, TypeError)", "TypeError", "tests/trainer/test_trainer.py -k template_refuses"),
    Mutation(
        "hpt_trl/trainer/forwards.py",
        "demonstration_forwards[-1 - index :: -len(batches)]",
        "demonstration_forwards[index :: len(batches)]",
        "tests/trainer/test_forwards.py -k longest_rollouts",
    ),
]
