"""Findings on a run in words, each with its numbers and a recommendation.

from hpt_trl.report.diagnosis import diagnose
from hpt_trl.report.run_folder import read_run

for finding in diagnose(read_run("runs/quickstart/hpt_seed0")):
    print(finding)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from hpt_trl.report.run_folder import Run, early, late
from hpt_trl.report.unsolved import advice_on_unsolved

_MIN_STEPS = 5


class Kind(StrEnum):
    """What a finding is about."""

    EQUAL_REWARDS = "equal rewards"
    VERIFIER = "verifier"
    GATE_ALL = "nearly all prompts on demonstrations"
    GATE_NONE = "nearly no prompts on demonstrations"
    ENTROPY = "entropy collapse"
    FALLING_REWARD = "falling reward"
    FORGOTTEN = "forgotten demonstrations"
    SKIPPED_STEPS = "skipped steps"
    LENGTH = "completions at the length limit"
    CUT_DEMONSTRATIONS = "truncated demonstrations"
    MALFORMED_DEMONSTRATIONS = "malformed demonstrations"
    SLOW_REWARDS = "slow reward functions"
    TOO_SHORT = "too few steps"
    NOTHING = "no issues"


@dataclass(frozen=True)
class Finding:
    """
    One finding.

    Args:
        kind: what it is about.
        title: title of a few words.
        text: the observation, with its numbers.
        advice: what to do; empty if nothing needs to be done.
        is_problem: False if it is only informative.
    """

    kind: Kind
    title: str
    text: str
    advice: str = ""
    is_problem: bool = True

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.title}.", self.text, self.advice) if part)


def diagnose(run: Run) -> list[Finding]:
    """Examine a run and return the findings, problems first; never empty.

    In the texts, "early" is the first tenth of the logged steps and "late" the last quarter.

    Args:
        run: run from [`~hpt_trl.runs.read_run`].

    Returns:
        Findings. A single one of kind `TOO_SHORT` if fewer than 5 steps were logged, a single one of kind `NOTHING` if
        no check found anything.
    """
    if len(run.log) < _MIN_STEPS:
        return [_too_short(run)]
    findings = [finding for check in _CHECKS if (finding := check(run)) is not None]
    if not findings:
        return [Finding(Kind.NOTHING, "No issues found", _summary(run), is_problem=False)]
    return sorted(findings, key=lambda finding: not finding.is_problem)


def _too_short(run: Run) -> Finding:
    logged, every = len(run.log), run.config.get("logging_steps")
    text = f"Only {_count(logged, 'step')} logged; at least {_MIN_STEPS} are needed for a diagnosis."
    interval = f", which was {every:g}" if isinstance(every, (int, float)) else ""
    advice = f"For a point per step, set logging_steps{interval}, to 1." if logged < run.steps else ""
    return Finding(Kind.TOO_SHORT, "Too few steps to diagnose", text, advice, is_problem=False)


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 or share == 0 else f"{share:.1%}"


def _summary(run: Run) -> str:
    solve_rate, reward = run.series("hpt/solve_rate"), run.series("reward")
    if len(solve_rate):
        return f"The solve rate went from {_percent(early(solve_rate))} early to {_percent(late(solve_rate))} late."
    if len(reward):
        return f"The mean reward went from {early(reward):.3g} early to {late(reward):.3g} late."
    nll = run.series("demonstrations/nll")
    if len(nll):
        return f"The NLL of the demonstrations went from {early(nll):.3g} to {late(nll):.3g} nats per token."
    return ""


def _equal_rewards(run: Run) -> Finding | None:
    equal, reward = run.series("frac_reward_zero_std"), run.series("reward")
    share = late(equal)
    if not len(equal) or share < 0.8:
        return None
    functions = ", ".join(run.facts.get("reward_functions", [])) or "the reward function"
    solve_rate = late(run.series("hpt/solve_rate"))
    # A policy that solves nearly everything and a verifier that accepts nearly everything look the same here.
    check_acceptance = (
        f"Check a few of the samples by hand. If some are wrong, {functions} is too lenient; if all are correct, use "
        "harder prompts or stop training."
    )
    on_unsolved, is_problem = advice_on_unsolved(run)
    if equal.min() == 1 and reward.max() - reward.min() < 1e-9:
        check_rejection = (
            f"Check a few of the samples by hand. If some are correct, {functions} or the solutions are wrong; if they "
            f"are truncated, allow longer completions. {on_unsolved}"
        )
        return Finding(
            Kind.EQUAL_REWARDS,
            f"Every reward was {reward.mean():.3g}",
            f"In {_count(len(reward), 'logged step')}, every rollout got the same reward, so the rollouts provided no "
            "gradient.",
            check_acceptance if solve_rate > 0.5 else check_rejection,
        )
    if math.isnan(solve_rate):
        advice = "Use prompts that the policy solves sometimes, or more rollouts per prompt (num_generations)."
    else:
        advice = f"The solve rate is {_percent(solve_rate)}. {check_acceptance if solve_rate > 0.5 else on_unsolved}"
    return Finding(
        Kind.EQUAL_REWARDS,
        "Most groups have equal rewards",
        f"Late in the run, all rollouts of a prompt got the same reward for {_percent(share)} of the prompts, so they "
        "provided no policy gradient.",
        advice,
        is_problem=is_problem or not solve_rate <= 0.5,
    )


def _verifier(run: Run) -> Finding | None:
    limits = {"unparseable_gold": 0.05, "timed_out": 0.02, "unparseable_answer": 0.5}
    causes = {
        "unparseable_gold": (
            "had a solution that the verifier cannot parse",
            "Fix the solutions; `hpt-trl prepare` lists them.",
        ),
        "timed_out": (
            "took the verifier too long",
            "Inspect the answers; they may contain huge numbers.",
        ),
        "unparseable_answer": (
            "had no answer that the verifier can parse",
            "Ask for a boxed answer in the prompt, and check whether completions are truncated before they reach it.",
        ),
    }
    initial = early(run.series("verdicts/unparseable_answer"))
    if initial < 0.1:
        causes["unparseable_answer"] = (
            f"had no answer that the verifier can parse (early: {_percent(initial)})",
            "The policy has unlearned the answer format: go back to an earlier checkpoint and lower learning_rate.",
        )
    shares = {name: late(run.series(f"verdicts/{name}")) for name in limits}
    exceeded = [name for name, limit in limits.items() if shares[name] >= limit]
    if not exceeded:
        return None
    observations = [f"{_percent(shares[name])} of the rollouts {causes[name][0]}" for name in exceeded]
    return Finding(
        Kind.VERIFIER,
        "The verifier cannot judge many rollouts",
        f"Late in the run, {' and '.join(observations)}.",
        " ".join(causes[name][1] for name in exceeded),
    )


def _gate_stuck(run: Run) -> Finding | None:
    share = run.series("hpt/demonstration_share")
    if not run.has_gate or not len(share):
        return None
    if late(share) >= 0.95:
        return _only_demonstrations(run, share)
    return _only_rollouts(run, share) if late(share) <= 0.01 else None


def _only_demonstrations(run: Run, share: pd.Series) -> Finding:
    solve_rate, nll = late(run.series("hpt/solve_rate")), run.series("demonstrations/nll")
    nll_change = f" Their NLL went from {early(nll):.3g} to {late(nll):.3g} nats per token." if len(nll) else ""
    return Finding(
        Kind.GATE_ALL,
        "The run trains on demonstrations only",
        f"Late in the run, {_percent(late(share))} of the prompts were trained on their demonstration, because the "
        f"policy solved {_percent(solve_rate)} of the rollouts. This is SFT.{nll_change}",
        "If some samples are correct, fix the verifier or the solutions. If the NLL has dropped and still no prompt is "
        f"solved, check that the verifier accepts the demonstrations. {advice_on_unsolved(run)[0]}",
    )


def _only_rollouts(run: Run, share: pd.Series) -> Finding:
    never_used = bool(share.max() <= 0.01)
    missing = run.series("demonstrations/missing").sum()
    cause = f" {_count(missing, 'prompt')} had no demonstration." if missing else ""
    advice = (
        "This is as intended if the policy solves nearly every prompt at least once and the samples that the verifier "
        "accepts are correct."
    )
    threshold = run.config.get("gate_threshold")
    if threshold is not None:
        advice += f" Prompts with a solve rate of at most {threshold:g} (gate_threshold) use their demonstration."
    return Finding(
        Kind.GATE_NONE,
        "The run trains on rollouts only" if never_used else "The run now trains on rollouts only",
        f"Late in the run, {_percent(late(share))} of the prompts were trained on their demonstration, and at most "
        f"{_percent(share.max())} in any logged step. This is GRPO.{cause}",
        advice,
        is_problem=never_used,
    )


def _entropy(run: Run) -> Finding | None:
    entropy = run.series("entropy")
    # The maximum, because a fast drop can be over within the first tenth.
    start = entropy.iloc[: max(1, len(entropy) // 10)].max()
    if not (late(entropy) < 0.1 and late(entropy) < 0.25 * start):
        return None
    change = (
        f"Entropy went from {start:.3g} to {late(entropy):.2g} nats per token: the rollouts of a prompt are nearly "
    )
    solve_rate, unsolved = late(run.series("hpt/solve_rate")), late(run.series("hpt/none_solved"))
    # Similar rollouts that are correct are the aim of training; similar rollouts that are wrong are a dead end.
    is_problem = not solve_rate > 0.9 if math.isnan(unsolved) else unsolved >= 0.25
    if not is_problem:
        return Finding(
            Kind.ENTROPY,
            "Entropy is low",
            f"{change}identical, and {_percent(solve_rate)} of them solve it.",
            "No action is needed as long as the solve rate keeps rising; after that, stop or use harder prompts.",
            is_problem=False,
        )
    outcome = ", so there is little left to learn from them."
    if not math.isnan(unsolved):
        outcome = f", and for {_percent(unsolved)} of the prompts, all rollouts fail."
    return Finding(
        Kind.ENTROPY,
        "Entropy has collapsed",
        f"{change}identical{outcome}",
        "Go back to a checkpoint before the drop and lower learning_rate, or raise TRL's entropy_coef or epsilon_high.",
    )


def _forgotten(run: Run) -> Finding | None:
    nll, share = run.series("demonstrations/nll"), run.series("hpt/demonstration_share")
    # With few prompts on demonstrations, the NLL is that of the hardest ones, and rises as they become fewer.
    if not len(nll) or late(share) < 0.5 or late(nll) < max(3 * nll.min(), nll.min() + 0.3):
        return None
    return Finding(
        Kind.FORGOTTEN,
        "The policy is forgetting the demonstrations",
        f"The NLL rose from {nll.min():.3g} nats per token at step {nll.idxmin()} to {late(nll):.3g} late in the run: "
        "training has damaged the policy.",
        "Go back to a checkpoint before the rise and lower learning_rate, or set skip_grad_norm_above below the "
        "gradient norms at that time.",
    )


def _falling_reward(run: Run) -> Finding | None:
    reward = run.series("reward")
    window = max(1, len(reward) // 10)
    smooth = reward.rolling(window, min_periods=window).mean().dropna()
    if len(smooth) < _MIN_STEPS:
        return None
    peak, end = float(smooth.max()), late(reward)
    if peak - end < 0.1 or end > 0.7 * peak:
        return None
    return Finding(
        Kind.FALLING_REWARD,
        "The reward dropped",
        f"The mean reward fell from {peak:.3g} around step {smooth.idxmax()} (mean of {_count(window, 'logged step')}) "
        f"to {end:.3g} late in the run.",
        "Use the checkpoint closest to the peak; for another run, lower learning_rate or sft_weight.",
    )


def _skipped_steps(run: Run) -> Finding | None:
    norms = run.log["grad_norm"] if "grad_norm" in run.log else pd.Series(dtype=float)
    skipped = run.series("hpt/skipped_steps")
    count = skipped.iloc[-1] if len(skipped) else (~pd.to_numeric(norms).map(math.isfinite)).sum()
    if not count:
        return None
    limit = run.config.get("skip_grad_norm_above")
    reason = f"above {limit:g} or not finite" if limit else "not finite"
    return Finding(
        Kind.SKIPPED_STEPS,
        f"{_count(count, 'optimizer step')} skipped",
        f"{count:,.0f} of {run.steps:,} steps did not update the model because the gradient norm was {reason}; the "
        f"median norm is {norms.median():.3g}.",
        "A few skipped steps are harmless. If there are many, lower learning_rate or sft_weight; if the norm is not "
        "finite, train in bf16 or fp32 instead of fp16.",
        is_problem=count > 0.02 * run.steps,
    )


def _length(run: Run) -> Finding | None:
    clipped = run.series("completions/clipped_ratio")
    if not len(clipped) or late(clipped) < 0.2:
        return None
    limit = run.config.get("max_completion_length")
    option = f"max_completion_length ({limit})" if limit else "max_completion_length"
    return Finding(
        Kind.LENGTH,
        "Many completions reach the length limit",
        f"Late in the run, {_percent(late(clipped))} of the rollouts were truncated at {option}; early in the run, "
        f"{_percent(early(clipped))}. A truncated completion has no final answer.",
        f"Raise {option}, or check in the samples whether completions repeat themselves.",
    )


def _prompts_per_generation(run: Run) -> float:
    """Mean number of prompts per generation; NaN without a gate history."""
    return math.nan if run.gate is None or run.gate.empty else run.gate.groupby("step").size().mean()


def _cut_demonstrations(run: Run) -> Finding | None:
    names = ("cut", "refused", "malformed")
    truncated, refused, malformed = (run.series(f"demonstrations/{name}").mean() for name in names)
    refused -= 0.0 if math.isnan(malformed) else malformed  # older runs did not count them separately
    prompts = _prompts_per_generation(run)
    share = (truncated + refused) / prompts
    if math.isnan(share) or share < 0.05:
        return None
    limit = run.config.get("max_demonstration_length") or run.config.get("max_completion_length")
    return Finding(
        Kind.CUT_DEMONSTRATIONS,
        "Demonstrations are too long",
        f"Of {prompts:.3g} demonstrations per generation, {truncated:.2g} were truncated and {refused:.2g} refused"
        f"{f' at {limit} tokens' if limit else ''}. A truncated demonstration does not teach the policy how to end.",
        "Raise max_demonstration_length, or use shorter demonstrations.",
    )


def _malformed_demonstrations(run: Run) -> Finding | None:
    malformed = run.series("demonstrations/malformed").mean()
    prompts = _prompts_per_generation(run)
    if math.isnan(malformed / prompts) or malformed < 0.05 * prompts:
        return None
    return Finding(
        Kind.MALFORMED_DEMONSTRATIONS,
        "Demonstrations are malformed",
        f"Of {prompts:.3g} demonstrations per generation, {malformed:.2g} could not be read or rendered; the run's "
        "output says what is wrong with each of them. Their prompts were trained on rollouts only.",
        "Convert the data with `hpt-trl prepare`, or remove these demonstrations.",
    )


def _slow_rewards(run: Run) -> Finding | None:
    rewards, step = run.series("time/verdicts").mean(), run.series("step_time").mean()
    if math.isnan(rewards) or rewards < 0.25 * step or rewards < 1:
        return None
    return Finding(
        Kind.SLOW_REWARDS,
        "Reward functions are slow",
        f"Reward functions took {rewards:.3g} s of {step:.3g} s per step.",
        "Make them faster, or make them async so that TRL runs several of them concurrently.",
        is_problem=False,
    )


_CHECKS: tuple[Callable[[Run], Finding | None], ...] = (
    # Causes before their consequences.
    _skipped_steps,
    _forgotten,
    _verifier,
    _length,
    _cut_demonstrations,
    _malformed_demonstrations,
    _gate_stuck,
    _equal_rewards,
    _entropy,
    _falling_reward,
    _slow_rewards,
)
