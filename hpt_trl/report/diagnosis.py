"""What stands out in a run, in words: each finding with its numbers and what to do.

from hpt_trl.report.diagnosis import diagnose
from hpt_trl.report.run_folder import read_run

for finding in diagnose(read_run("runs/quickstart")):
    print(finding)

One file over 300 lines: the checks are one list, read in its order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from hpt_trl.report.run_folder import Run, early, late

_FEWEST_STEPS = 5


class Kind(StrEnum):
    """What a finding is about."""

    EQUAL_REWARDS = "equal rewards"
    VERIFIER = "verifier"
    GATE_ALL = "gate stuck at all"
    GATE_NONE = "gate stuck at none"
    ENTROPY = "collapsed entropy"
    FALLING_REWARD = "falling reward"
    FORGOTTEN = "demonstrations forgotten"
    SKIPPED_STEPS = "skipped steps"
    LENGTH = "lengths at the limit"
    CUT_DEMONSTRATIONS = "cut demonstrations"
    SLOW_VERDICTS = "slow verdicts"
    TOO_SHORT = "too short"
    NOTHING = "nothing stands out"


@dataclass(frozen=True)
class Finding:
    """
    One thing that stands out.

    Args:
        kind: what it is about.
        title: a few words.
        text: what was seen, with its numbers.
        advice: what to do; empty where nothing is to be done.
        is_problem: False for what only wants to be known.
    """

    kind: Kind
    title: str
    text: str
    advice: str = ""
    is_problem: bool = True

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.title}.", self.text, self.advice) if part)


def diagnose(run: Run) -> list[Finding]:
    """What stands out in a run, problems first; never empty.

    "Late" in the texts is the last quarter of the logged steps, "early" the first tenth.

    Args:
        run: from [`~hpt_trl.runs.read_run`].

    Returns:
        Findings. One of kind `TOO_SHORT` alone where fewer than 5 steps were logged, one of kind `NOTHING` alone where
        nothing stands out.
    """
    if len(run.log) < _FEWEST_STEPS:
        text = f"{_count(len(run.log), 'step')} logged: too few to judge."
        return [Finding(Kind.TOO_SHORT, "Too short to judge", text, is_problem=False)]
    found = [finding for check in _CHECKS if (finding := check(run)) is not None]
    if not found:
        return [Finding(Kind.NOTHING, "Nothing stands out", _summary(run), is_problem=False)]
    return sorted(found, key=lambda finding: not finding.is_problem)


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1f} %"


def _summary(run: Run) -> str:
    solved, reward = run.series("hpt/solve_rate"), run.series("reward")
    if len(solved):
        return f"The solve rate went from {_percent(early(solved))} early to {_percent(late(solved))} late."
    if len(reward):
        return f"The mean reward went from {early(reward):.3g} early to {late(reward):.3g} late."
    nll = run.series("demonstrations/nll")
    return f"The demonstrations' NLL went from {early(nll):.3g} to {late(nll):.3g} nats a token." if len(nll) else ""


def _equal_rewards(run: Run) -> Finding | None:
    equal, reward = run.series("frac_reward_zero_std"), run.series("reward")
    share = late(equal)
    if not len(equal) or share < 0.8:
        return None
    functions = ", ".join(run.facts.get("reward_functions", [])) or "the reward function"
    solved = late(run.series("hpt/solve_rate"))
    # What solves nearly everything and what accepts nearly everything look the same from here.
    doubt = (
        f"Judge a few samples below by hand. If some are wrong, {functions} accepts too much; if all are right, take "
        "harder questions, or stop here."
    )
    if equal.min() == 1 and reward.max() - reward.min() < 1e-9:
        return Finding(
            Kind.EQUAL_REWARDS,
            f"Every reward was {reward.mean():.3g}",
            f"Over {_count(len(reward), 'logged step')} no rollout got another reward, so rollouts gave no gradient.",
            doubt
            if solved > 0.5
            else f"Judge a few samples below by hand. If some are right, {functions} or the solutions are at fault; if "
            "none is, the policy needs demonstrations, easier questions or longer completions.",
        )
    advice = "Take questions that it solves sometimes, or more rollouts a prompt (num_generations)."
    if not math.isnan(solved):
        easier = "take easier questions, or more rollouts a prompt (num_generations)."
        advice = f"It solves {_percent(solved)}{f'. {doubt}' if solved > 0.5 else f': {easier}'}"
    return Finding(
        Kind.EQUAL_REWARDS,
        "Most groups have equal rewards",
        f"Late in the run all rollouts of a prompt got the same reward for {_percent(share)} of the prompts, and gave "
        "no policy gradient.",
        advice,
    )


def _verifier(run: Run) -> Finding | None:
    limits = {"unparseable_gold": 0.05, "timed_out": 0.02, "unparseable_answer": 0.5}
    causes = {
        "unparseable_gold": ("solutions that it cannot read", "Mend the solutions; `hpt-trl prepare` names them."),
        "timed_out": ("verdicts that took too long", "Look at the answers: they may be huge numbers."),
        "unparseable_answer": (
            "completions without a readable answer",
            "Ask for a box in the prompt, and see whether completions are cut before they get there.",
        ),
    }  # fmt: skip
    first = early(run.series("verdicts/unparseable_answer"))
    if first < 0.1:
        causes["unparseable_answer"] = (
            f"completions without a readable answer (early: {_percent(first)})",
            "The policy knew how to answer and has lost it: go back to a checkpoint, with a lower learning_rate.",
        )
    shares = {name: late(run.series(f"verdicts/{name}")) for name in limits}
    over = [name for name, limit in limits.items() if shares[name] >= limit]
    if not over:
        return None
    return Finding(
        Kind.VERIFIER,
        "The verifier cannot judge many answers",
        "Late in the run " + " and ".join(f"{_percent(shares[name])} were {causes[name][0]}" for name in over) + ".",
        " ".join(causes[name][1] for name in over),
    )


def _gate_stuck(run: Run) -> Finding | None:
    share = run.series("hpt/demonstration_share")
    if not run.has_gate or not len(share):
        return None
    threshold = run.config.get("gate_threshold")
    if late(share) >= 0.95:
        solved, nll = late(run.series("hpt/solve_rate")), run.series("demonstrations/nll")
        known = f" Their NLL went from {early(nll):.3g} to {late(nll):.3g} nats a token." if len(nll) else ""
        return Finding(
            Kind.GATE_ALL,
            "The gate is stuck at demonstrations",
            f"Late in the run {_percent(late(share))} of the prompts learned from their demonstration, for the policy "
            f"solved {_percent(solved)} of the rollouts: this was SFT.{known}",
            "If the samples below hold right answers, mend the verifier or the solutions. If the NLL has come down and "
            "still nothing is solved, see that the verifier accepts the demonstrations themselves. Else train "
            "longer, or on easier questions.",
        )
    if late(share) <= 0.01:
        missing = run.series("demonstrations/missing").sum()
        cause = f" {_count(missing, 'prompt')} had none." if missing else ""
        return Finding(
            Kind.GATE_NONE,
            "The gate is stuck at rollouts" if share.max() <= 0.01 else "The gate has closed",
            f"Late in the run {_percent(late(share))} of the prompts learned from their demonstration, and at most "
            f"{_percent(share.max())} in any logged step: from there on it is GRPO.{cause}",
            "That is as it should be if the policy solves nearly every prompt at least once, and if samples below that "
            "the verifier accepts are right."
            + (
                f" Demonstrations come in up to a solve rate of {threshold:g} (gate_threshold)."
                if threshold is not None
                else ""
            ),
            is_problem=share.max() <= 0.01,
        )
    return None


def _entropy(run: Run) -> Finding | None:
    entropy = run.series("entropy")
    # Their highest: a fast fall is over within the first tenth.
    start = entropy.iloc[: max(1, len(entropy) // 10)].max()
    if not (late(entropy) < 0.1 and late(entropy) < 0.25 * start):
        return None
    solved, failed = late(run.series("hpt/solve_rate")), late(run.series("hpt/none_solved"))
    # Rollouts that are alike and right are what training is for: only those that are alike and wrong are stuck.
    is_problem = not solved > 0.9 if math.isnan(failed) else failed >= 0.25
    outcome = f", and {_percent(solved)} of them solve it."
    if is_problem:
        outcome = f", and for {_percent(failed)} of the prompts all of them fail."
        if math.isnan(failed):
            outcome = ", so little is left to learn from them."
    return Finding(
        Kind.ENTROPY,
        "Entropy has collapsed" if is_problem else "Entropy is low",
        f"It went from {start:.3g} to {late(entropy):.2g} nats a token: rollouts of a prompt are nearly alike{outcome}",
        "Go back to a checkpoint before the fall with a lower learning_rate, or with TRL's entropy_coef or "
        "epsilon_high above their defaults."
        if is_problem
        else "Nothing to mend while that holds; when it no longer rises, stop, or take harder questions.",
        is_problem=is_problem,
    )


def _forgotten(run: Run) -> Finding | None:
    nll, share = run.series("demonstrations/nll"), run.series("hpt/demonstration_share")
    # Where few prompts learn from theirs, the NLL is of the hardest, and rises as they get fewer.
    if not len(nll) or late(share) < 0.5 or late(nll) < max(3 * nll.min(), nll.min() + 0.3):
        return None
    return Finding(
        Kind.FORGOTTEN,
        "Demonstrations have become unlikely",
        f"Their NLL was {nll.min():.3g} nats a token at step {nll.idxmin()}, {late(nll):.3g} late: training has "
        "damaged the policy.",
        "Go back to a checkpoint before the rise, with a lower learning_rate, or a skip_grad_norm_above below the "
        "norms of that time.",
    )


def _falling_reward(run: Run) -> Finding | None:
    reward = run.series("reward")
    window = max(1, len(reward) // 10)
    smooth = reward.rolling(window, min_periods=window).mean().dropna()
    if len(smooth) < _FEWEST_STEPS:
        return None
    peak, end = float(smooth.max()), late(reward)
    if peak - end < 0.1 or end > 0.7 * peak:
        return None
    return Finding(
        Kind.FALLING_REWARD,
        "The reward fell",
        f"It was {peak:.3g} around step {smooth.idxmax()} (mean of {_count(window, 'logged step')}), {end:.3g} late.",
        "Take the checkpoint nearest to the peak; lower learning_rate or sft_weight for another run.",
    )


def _skipped_steps(run: Run) -> Finding | None:
    norms = run.log["grad_norm"] if "grad_norm" in run.log else pd.Series(dtype=float)
    skipped = run.series("hpt/skipped_steps")
    count = skipped.iloc[-1] if len(skipped) else (~pd.to_numeric(norms).map(math.isfinite)).sum()
    if not count:
        return None
    limit = run.config.get("skip_grad_norm_above")
    reason = f"the gradient norm was above {limit:g} or not finite" if limit else "the gradient norm was not finite"
    return Finding(
        Kind.SKIPPED_STEPS,
        f"{_count(count, 'optimizer step')} skipped",
        f"Of {run.steps:,} steps {count:,.0f} changed nothing, for {reason}; its median is {norms.median():.3g}.",
        "A few are nothing to worry about. Many: lower learning_rate or sft_weight; if it is not finite, train in "
        "bf16 or fp32 instead of fp16.",
        is_problem=count > 0.02 * run.steps,
    )


def _length(run: Run) -> Finding | None:
    clipped = run.series("completions/clipped_ratio")
    if not len(clipped) or late(clipped) < 0.2:
        return None
    limit = run.config.get("max_completion_length")
    told = f"max_completion_length ({limit})" if limit else "max_completion_length"
    return Finding(
        Kind.LENGTH,
        "Completions run into the length limit",
        f"Late in the run {_percent(late(clipped))} of the rollouts were cut at {told}; early it was "
        f"{_percent(early(clipped))}. What is cut has no answer.",
        f"Raise {told}, or see in the samples below whether they repeat themselves.",
    )


def _cut_demonstrations(run: Run) -> Finding | None:
    cut, refused = (run.series(f"demonstrations/{name}").mean() for name in ("cut", "refused"))
    prompts = math.nan if run.gate is None or run.gate.empty else run.gate.groupby("step").size().mean()
    share = (cut + refused) / prompts
    if math.isnan(share) or share < 0.05:
        return None
    limit = run.config.get("max_demonstration_length") or run.config.get("max_completion_length")
    return Finding(
        Kind.CUT_DEMONSTRATIONS,
        "Demonstrations do not fit",
        f"Of {prompts:.3g} demonstrations a generation {cut:.2g} were cut and {refused:.2g} refused"
        + (f" at {limit} tokens" if limit else "") + ". One that is cut ends in the middle and teaches no end.",
        "Raise max_demonstration_length, or take shorter demonstrations.",
    )  # fmt: skip


def _slow_verdicts(run: Run) -> Finding | None:
    verdicts, step = run.series("time/verdicts").mean(), run.series("step_time").mean()
    if math.isnan(verdicts) or verdicts < 0.25 * step or verdicts < 1:
        return None
    return Finding(
        Kind.SLOW_VERDICTS,
        "Verdicts take much of the time",
        f"{verdicts:.3g} s of a step's {step:.3g} s went into reward functions.",
        "Make them faster, or async so that TRL runs several at once.",
        is_problem=False,
    )


_CHECKS: tuple[Callable[[Run], Finding | None], ...] = (
    # Causes before what comes of them.
    _skipped_steps,
    _forgotten,
    _verifier,
    _length,
    _cut_demonstrations,
    _gate_stuck,
    _equal_rewards,
    _entropy,
    _falling_reward,
    _slow_verdicts,
)
