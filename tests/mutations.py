"""The mutations of `make mutants`: one line of the core each, and the tests that must notice.

Where the code of a line changes, change its mutation with it. A new rule in the core deserves a new one.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A piece of text that is in `file` once, what replaces it, and pytest's files and `-k` expression."""

    file: str
    old: str
    new: str
    tests: str


GATE, ESTIMATOR, PRESETS, DECISION = (
    f"hpt_trl/algorithm/{name}.py" for name in ("gate", "estimator", "presets", "group_decision")
)
HPT, BATCHES, LOSSES, COLLECTOR, FORWARDS, PACKING, DEMONSTRATIONS, DURABLE = (
    f"hpt_trl/trainer/{name}.py"
    for name in ("hpt", "batches", "losses", "collector", "forwards", "row_packing", "demonstrations", "durable")
)
STEP, IMAGES, LOGPS = (f"hpt_trl/trainer/{name}.py" for name in ("demonstration_step", "image_columns", "needed_logps"))
RENDERING, THINKING = "hpt_trl/trainer/chat_rendering.py", "hpt_trl/common/thinking.py"
CHECKPOINTS, MARKERS = "hpt_trl/durability/checkpoints.py", "hpt_trl/durability/markers.py"
DIVERGENCE, FILES = "hpt_trl/durability/divergence.py", "hpt_trl/common/files.py"

OF_GATES, OF_ESTIMATORS = "tests/algorithm/test_gate.py", "tests/algorithm/test_estimator.py"
OF_DECISIONS, OF_LOSSES = "tests/algorithm/test_group_decision.py", "tests/trainer/test_losses.py"
OF_PACKING, OF_TOKENS = "tests/trainer/test_row_packing.py", "tests/trainer/test_demonstrations.py"
OF_TEMPLATES = "tests/trainer/test_chat_rendering.py"
OF_ALGORITHMS, OF_RULES = "tests/trainer/test_algorithms.py", "tests/trainer/test_algorithm_rules.py"
OF_DEMONSTRATIONS, OF_FORWARDS = "tests/trainer/test_demonstration_loss.py", "tests/trainer/test_forwards.py"
OF_RESUME, OF_FAULTS, OF_MARKERS = (f"tests/durability/test_{name}.py" for name in ("resume", "faults", "markers"))
OF_FILES, OF_ADAPTERS = "tests/common/test_files.py", "tests/trainer/test_adapters.py"
HOOKS, OF_TOOLS = "hpt_trl/trainer/trl_hooks.py", "tests/trainer/test_tools.py"
OF_IMAGES, OF_VISION = "tests/trainer/test_image_columns.py", "tests/trainer/test_vision.py"
OF_DIVERGENCE = "tests/durability/test_divergence.py"

MUTATIONS = [
    # Gates: thresholds are inclusive, counts are rounded, and a gate decides only what it can know.
    Mutation(GATE, "* last).round()", "* last)", OF_GATES),
    Mutation(GATE, " and not weights.off_policy_P.any()", "", OF_GATES),
    Mutation(GATE, "rewards_P_G >= success_value", "rewards_P_G > success_value", OF_GATES),
    Mutation(GATE, "sft_P = solve_rate_P <= threshold", "sft_P = solve_rate_P < threshold", OF_GATES),
    Mutation(GATE, "solve_rate_P <= off_policy_threshold", "solve_rate_P < off_policy_threshold", OF_GATES),
    Mutation(GATE, "(known_P < 0) | (known_P > 1)", "known_P < 0", OF_GATES),
    Mutation(GATE, "has_demonstration_P & ~solve_rate_P.isnan()", "has_demonstration_P", OF_GATES),
    Mutation(GATE, " & (weight[known_P] >= 0)", "", OF_GATES),
    Mutation(GATE, "max(0.0, 1 - step / steps)", "(1 - step / steps)", OF_GATES),
    # Estimators: constants, bounds, precision, and rows that could not be scored.
    Mutation(ESTIMATOR, "logps_B_T.float() if is_half else logps_B_T", "logps_B_T", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "max_ratio: float = 1.2", "max_ratio: float = 1.3", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "LUFFY_SHAPE = 0.1", "LUFFY_SHAPE = 0.2", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "ratio_B_T > 1 + epsilon_high", "ratio_B_T >= 1 + epsilon_high", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)", "clamp(min=-_MAX_LOG_RATIO)", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "-1.0).masked_fill(rewards_B.isnan(), 0.0)", "-1.0)", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "sum(dim=1, keepdim=True) - 1)", "sum(dim=1, keepdim=True))", OF_ESTIMATORS),
    Mutation(ESTIMATOR, "mask_B_T.sum(dim=1).clamp(min=1)", "mask_B_T.sum(dim=1)", OF_ESTIMATORS),
    Mutation(PRESETS, "epsilon_high=4e-4", "epsilon_high=3e-4", OF_ESTIMATORS),
    Mutation(PRESETS, "options.max_steps // 2", "options.max_steps", f"{OF_ALGORITHMS} -k annealed"),
    # The decision per group.
    Mutation(DECISION, "if reads_solve_rates else solve_rate_P.nan_to_num()", "", f"{OF_RULES} -k no_verdict"),
    Mutation(DECISION, "rewards_B.masked_fill(rewards_B_F.isnan().all(dim=1), torch.nan)", "rewards_B", OF_DECISIONS),
    Mutation(DECISION, "scale=scale_joint_groups", "scale=False", OF_DECISIONS),
    Mutation(DECISION, "(~groups.gate_P_G.isnan()).sum(dim=1)", "(~groups.gate_P_G.isnan()).sum()", OF_DECISIONS),
    # Losses.
    Mutation(LOSSES, "mask_B_T = mask_B_T * tool_mask_B_T", "pass", OF_LOSSES),
    Mutation(LOSSES, ' * batch["rollout_weight"].unsqueeze(1)', "", OF_LOSSES),
    Mutation(LOSSES, 'losses_B_T * batch["importance_sampling_ratio"]', "losses_B_T", OF_LOSSES),
    Mutation(LOSSES, "sft_B = sft_weight * weight_B", "sft_B = weight_B", OF_LOSSES),
    Mutation(LOSSES, 'if loss_type == "grpo"', 'if loss_type != "grpo"', OF_LOSSES),
    Mutation(
        BATCHES, 'batch["advantages"] = batch["advantages"] * weight_B', "pass", f"{OF_DEMONSTRATIONS} -k always_on"
    ),
    Mutation(LOSSES, ' & batch["completion_mask"].any(dim=1)', "", f"{OF_RULES} -k truncated"),
    Mutation(STEP, ", _pending_metrics=defaultdict(list)", "", f"{OF_ALGORITHMS} -k what_rewards_log"),
    Mutation(
        HPT,
        "rows = generated_rows * self.current_gradient_accumulation_steps",
        "rows = generated_rows",
        f"{OF_DEMONSTRATIONS} -k short_last_window",
    ),
    Mutation(COLLECTOR, " | (weights.off_policy_P > 0)", "", f"{OF_DEMONSTRATIONS} -k off_policy_arm"),
    Mutation(STEP, "outputs.log_probs[:, -width:]", "outputs.log_probs", f"{OF_ADAPTERS} -k prompt_tuning"),
    Mutation(
        COLLECTOR,
        "min(self.limit, max(0, self.context - prompt_length))",
        "self.limit",
        "tests/trainer/test_lengths.py -k cut",
    ),
    # Which rows are computed where.
    Mutation(FORWARDS, "cut)[::-1]", "cut)", f"{OF_FORWARDS} -k longest_rollouts"),
    Mutation(FORWARDS, "and not demonstrations and not may_be_empty:", "and False:", f"{OF_FORWARDS} -k nothing_to"),
    Mutation(FORWARDS, "may_be_empty and index > 0", "may_be_empty", f"{OF_FORWARDS} -k nothing_to"),
    Mutation(FORWARDS, "int(gather(tokens).min())", "10_000", f"{OF_FORWARDS} -k no_pass_is_larger"),
    Mutation(FORWARDS, "math.gcd(len(batches), micro_batches_per_step)", "len(batches)", f"{OF_FORWARDS} -k old_logps"),
    Mutation(PACKING, "(left + right) > budget", "(left + right) >= budget", OF_PACKING),
    Mutation(PACKING, '    "tool_mask",\n', "", OF_PACKING),
    Mutation(PACKING, '    "ref_per_token_logps",\n', "", f"{OF_FORWARDS} -k options2"),
    Mutation(PACKING, 'small["completion_mask"][len(rows) :] = 0', "pass", OF_PACKING),
    # What tools wrote, end to end.
    Mutation(PACKING, '    "tool_mask",\n', "", f"{OF_TOOLS} -k rows_are_cut"),
    Mutation(LOSSES, "mask_B_T = mask_B_T * tool_mask_B_T", "pass", f"{OF_TOOLS} -k estimators_loss"),
    Mutation(HOOKS, 'mask * batch["tool_mask"] if', "mask if", f"{OF_TOOLS} -k bnpo"),
    # Images.
    Mutation(PACKING, "len(rows) or has_images(small)", "len(rows)", OF_IMAGES),
    Mutation(PACKING, "prompts.size(1) - left : prompts", ": prompts", OF_IMAGES),
    Mutation(IMAGES, ' and not sum(batch["num_images"])', " and False", OF_IMAGES),
    Mutation(STEP, "**image_inputs(batch)", "**{}", f"{OF_VISION} -k demonstrations_is_cross"),
    Mutation(
        LOGPS,
        "others |= {name: part[name] for name in IMAGE_COLUMNS if name in part}",
        "pass",
        f"{OF_VISION} -k silent_rows",
    ),
    # Demonstrations as tokens.
    Mutation(THINKING, "TAIL_TOKENS = 16", "TAIL_TOKENS = 2", OF_TOKENS),
    Mutation(DEMONSTRATIONS, "sort_keys=True, ", "", OF_TOKENS),
    Mutation(DEMONSTRATIONS, "kept = len(ids) - (", "kept = len(ids) - 0 * (", OF_TOKENS),
    Mutation(DEMONSTRATIONS, 'in (before[-_TAIL_CHARACTERS:], "\\n", ":")', "in ()", OF_TOKENS),
    Mutation(
        THINKING,
        "removeprefix(THINK).removeprefix(_gap(prompt))\n    return",
        "removeprefix(THINK)\n    return",
        OF_TOKENS,
    ),
    Mutation(THINKING, "return text if END_OF_THINK in text else _NO_THOUGHTS + text", "return text", OF_TOKENS),
    Mutation(RENDERING, "(TemplateError, TypeError) as error", "TypeError as error", OF_TOKENS),
    Mutation(RENDERING, "if start < turn.start < end else", "if False else", OF_TEMPLATES),
    Mutation(RENDERING, "if token.start() < end < token.end()), end", "if False), end", OF_TEMPLATES),
    Mutation(RENDERING, "return start, end + len(following)", "return start, end", OF_TEMPLATES),
    Mutation(RENDERING, "and not self.writes_tool_calls", "and False", OF_TEMPLATES),
    # What survives a kill.
    Mutation(DIVERGENCE, "self.in_row + 1 if is_bad else 0", "self.in_row + is_bad", f"{OF_FAULTS} -k learns_nothing"),
    Mutation(DIVERGENCE, "return step - self.in_row", "return step", f"{OF_DIVERGENCE} -k marks_stay"),
    Mutation(DIVERGENCE, "0 if is_changed else ", "", f"{OF_DIVERGENCE} -k count_if_nothing"),
    Mutation(CHECKPOINTS, "*([] if spare is None else [spare])", "", f"{OF_DIVERGENCE} -k run_that_is_stuck"),
    Mutation(
        DURABLE,
        "self.state.global_step >= self.state.max_steps:\n            # Resumed",
        "False:\n            # Resumed",
        f"{OF_RESUME} -k uninterrupted_one[10]",
    ),
    Mutation(
        DURABLE, "if self._termination.has_stopped else {}", "if False else {}", f"{OF_FAULTS} -k beside_the_best"
    ),
    Mutation(CHECKPOINTS, "if all(step in seen", "if any(step in seen", f"{OF_RESUME} -k another_process"),
    Mutation(CHECKPOINTS, "return epoch, round(", "return epoch, int(", f"{OF_RESUME} -k stream"),
    Mutation(CHECKPOINTS, "isinstance(error, RunError) or ", "", f"{OF_RESUME} -k explain_themselves"),
    Mutation(
        CHECKPOINTS,
        "isinstance(error, RunError) or is_lost_connection(error)",
        "isinstance(error, RunError)",
        f"{OF_RESUME} -k explain_themselves",
    ),
    Mutation(MARKERS, "path.stat().st_size != size", "False", f"{OF_MARKERS} -k judged_by_their_sizes"),
    Mutation(MARKERS, "actual[name] != checksum", "False", f"{OF_MARKERS} -k noticed_and_named"),
    Mutation(FILES, "    finally:\n        _remove(temporary)", "    finally:\n        pass", OF_FILES),
]
