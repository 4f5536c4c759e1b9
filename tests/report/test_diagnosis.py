"""Findings on runs whose numbers are written out in the tests."""

from pathlib import Path

import pandas as pd
import pytest

from hpt_trl.report.diagnosis import Kind, diagnose
from hpt_trl.report.run_folder import Run, early, late

STEPS = range(1, 21)
FACTS = {
    "gate": "switch",
    "algorithm": "hpt",
    "reward_functions": ["accuracy_reward"],
    "config": {"max_completion_length": 48, "gate_threshold": 0.0, "skip_grad_norm_above": 5.0},
}


def gate_of(unsolved: int, without_demonstration: int = 0) -> pd.DataFrame:
    """History of 8 prompts per step: so many unsolved ones, of which the first have no demonstration."""
    count = len(STEPS)
    weights = [float(without_demonstration <= number < unsolved) for number in range(8)]
    return pd.DataFrame(
        {
            "step": sorted([step - 1 for step in STEPS] * 8),
            "prompt_id": "p",
            "solve_rate": [0.5 * (number >= unsolved) for number in range(8)] * count,
            "rollouts": [1 - weight for weight in weights] * count,
            "demonstration": weights * count,
            "off_policy": 0.0,
        }
    )


GATE = gate_of(unsolved=2)
HEALTHY = {
    "loss": 0.1,
    "reward": [0.2 + 0.02 * step for step in STEPS],
    "hpt/solve_rate": [0.2 + 0.02 * step for step in STEPS],
    "hpt/demonstration_share": [0.6 - 0.02 * step for step in STEPS],
    "frac_reward_zero_std": 0.3,
    "demonstrations/nll": 0.2,
    "demonstrations/cut": 0.0,
    "demonstrations/refused": 0.0,
    "demonstrations/missing": 0.0,
    "entropy": 0.4,
    "grad_norm": 0.5,
    "hpt/skipped_steps": 0.0,
    "completions/clipped_ratio": 0.02,
    "verdicts/unparseable_answer": 0.1,
    "verdicts/unparseable_gold": 0.0,
    "verdicts/timed_out": 0.0,
    "step_time": 10.0,
    "time/generation": 5.0,
    "time/verdicts": 0.5,
}


def run_of(facts=FACTS, steps=STEPS, gate=GATE, **changes):
    """A healthy run with changed columns; `__` in their names stands for `/`."""
    columns = HEALTHY | {name.replace("__", "/"): values for name, values in changes.items()}
    log = pd.DataFrame(columns, index=pd.Index(steps, name="step"))
    no_evaluations = pd.DataFrame(index=pd.Index([], name="step"))
    return Run(Path("runs/x"), log, no_evaluations, gate=gate, facts=facts)


def linear(start, end):
    """A straight line over the steps."""
    return [start + (end - start) * (step - 1) / (len(STEPS) - 1) for step in STEPS]


def test_early_and_late():
    values = pd.Series(range(20))
    assert early(values) == 0.5  # of 0 and 1
    assert late(values) == 17.0  # of 15 to 19


def test_a_healthy_run_has_no_issues():
    (finding,) = diagnose(run_of())
    assert finding.kind == Kind.NOTHING
    # (0.22 + 0.24) / 2 and (0.52 + 0.54 + 0.56 + 0.58 + 0.60) / 5
    assert finding.text == "The solve rate went from 23% early to 56% late."
    assert not finding.is_problem


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"frac_reward_zero_std": 1.0, "reward": 0.0}, Kind.EQUAL_REWARDS, ["Every reward was 0", "accuracy_reward"]),
        (
            {"frac_reward_zero_std": 1.0, "reward": 1.0, "hpt__solve_rate": 1.0},
            Kind.EQUAL_REWARDS,
            ["Every reward was 1", "If some are wrong, accuracy_reward is too lenient"],
        ),
        (
            {"frac_reward_zero_std": 0.9},
            Kind.EQUAL_REWARDS,
            ["90% of the prompts", "solve rate is 56%. Check", "is too lenient", "use harder"],
        ),
        (
            {"frac_reward_zero_std": 0.9, "hpt__solve_rate": 0.1},
            Kind.EQUAL_REWARDS,
            ["solve rate is 10%. Prompts that no rollout solves train on their demonstration, as HPT intends."],
        ),
        ({"verdicts__unparseable_gold": 0.2}, Kind.VERIFIER, ["20% of the rollouts had a solution that the verifier"]),
        ({"verdicts__unparseable_answer": 0.7}, Kind.VERIFIER, ["70% of the rollouts had no answer that the verifier"]),
        (
            {"verdicts__unparseable_answer": linear(0.0, 1.0)},
            Kind.VERIFIER,
            ["89% of the rollouts", "(early: 3%)", "has unlearned the answer format"],
        ),
        (
            {"hpt__demonstration_share": 1.0, "hpt__solve_rate": 0.001, "demonstrations__nll": linear(1.0, 0.1)},
            Kind.GATE_ALL,
            ["100% of the prompts", "solved 0.1%", "from 0.976 to 0.195 nats"],
        ),
        (
            {"hpt__demonstration_share": 0.0},
            Kind.GATE_NONE,
            ["The run trains on rollouts only", "GRPO", "solve rate of at most 0"],
        ),
        (
            {"hpt__demonstration_share": 0.0, "demonstrations__missing": 8.0},
            Kind.GATE_NONE,
            ["160 prompts had no demonstration"],
        ),
        (
            {"hpt__demonstration_share": [0.5] * 10 + [0.0] * 10},
            Kind.GATE_NONE,
            ["now trains on rollouts only", "at most 50%"],
        ),
        ({"entropy": [1.0] * 5 + [0.01] * 15}, Kind.ENTROPY, ["from 1 to 0.01 nats", "entropy_coef"]),
        (
            # A drop within the first tenth.
            {"entropy": [0.5] + [0.06] * 19, "hpt__none_solved": 0.5},
            Kind.ENTROPY,
            ["has collapsed", "from 0.5 to 0.06 nats", "for 50% of the prompts, all rollouts fail"],
        ),
        (
            {"hpt__demonstration_share": 0.6, "demonstrations__nll": linear(0.1, 2.0)},
            Kind.FORGOTTEN,
            ["0.1 nats per token at step 1 to 1.8 late", "learning_rate"],
        ),
        ({"reward": [0.1] * 5 + [0.8] * 5 + [0.2] * 10}, Kind.FALLING_REWARD, ["0.8 around step 7", "to 0.2 late"]),
        (
            {"hpt__skipped_steps": [0.0] * 10 + [4.0] * 10},
            Kind.SKIPPED_STEPS,
            ["4 optimizer steps skipped", "above 5 or not finite", "median norm is 0.5"],
        ),
        ({"completions__clipped_ratio": 0.5}, Kind.LENGTH, ["50% of the rollouts", "max_completion_length (48)"]),
        (
            {"demonstrations__cut": 2.0},
            Kind.CUT_DEMONSTRATIONS,
            ["Of 8 demonstrations per generation, 2 were truncated"],
        ),
        # Of 1.8 refused ones, 1.5 are malformed: the other 0.3 of 8 are too few to be a finding.
        (
            {"demonstrations__refused": 1.8, "demonstrations__malformed": 1.5},
            Kind.MALFORMED_DEMONSTRATIONS,
            ["Of 8 demonstrations per generation, 1.5 could not be read or rendered", "hpt-trl prepare"],
        ),
        (
            {"demonstrations__refused": 2.0, "demonstrations__malformed": 0.2},
            Kind.CUT_DEMONSTRATIONS,
            ["0 were truncated and 1.8 refused", "Raise max_demonstration_length"],
        ),
        ({"time__verdicts": 4.0}, Kind.SLOW_REWARDS, ["4 s of 10 s per step"]),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, Kind) else "",
)
def test_findings_contain_their_numbers(changes, kind, words):
    (finding,) = diagnose(run_of(**changes))
    assert finding.kind == kind
    for word in words:
        assert word in str(finding)


UNSOLVED = {"frac_reward_zero_std": 0.9, "hpt__solve_rate": 0.1}
OFF = FACTS | {"gate": "off"}
AFTER_WARMUP = FACTS | {"config": FACTS["config"] | {"sft_warmup_steps": 30}}


@pytest.mark.parametrize(("facts", "gate", "advice", "is_problem"), [
    # Of 8 prompts, 6 are unsolved and 3 of these have no demonstration.
    (FACTS, gate_of(6, 3), ["No rollout solved 38% of the prompts", "Add demonstrations"], True),
    (AFTER_WARMUP, gate_of(6, 3), ["No rollout solved 38% of the prompts", "Add demonstrations"], True),
    (FACTS, gate_of(6), ["train on their demonstration, as HPT intends"], False),
    (AFTER_WARMUP, gate_of(6), ["as HPT intends", "does not rise, train longer."], False),
    (OFF, gate_of(0), ["Use easier prompts", "or HPT with demonstrations"], True),
])  # fmt: skip
def test_advice_on_unsolved_prompts_fits_the_gate(facts, gate, advice, is_problem):
    for changes in (UNSOLVED, UNSOLVED | {"frac_reward_zero_std": 1.0, "reward": 0.0, "hpt__solve_rate": 0.0}):
        (finding,) = diagnose(run_of(facts, gate=gate, **changes))
        assert finding.kind == Kind.EQUAL_REWARDS
        for words in advice:
            assert words in finding.advice
        assert ("easier" in finding.advice) == (facts is OFF)
        assert ("warmup_hpt" in finding.advice) == (facts is FACTS)
        assert finding.is_problem == (is_problem or "reward" in changes)


def test_a_run_on_demonstrations_only_is_not_advised_to_use_easier_prompts():
    (finding,) = diagnose(run_of(hpt__demonstration_share=1.0, hpt__solve_rate=0.001))
    assert "easier" not in finding.advice
    assert "algorithm: warmup_hpt" in finding.advice


def test_problems_come_first():
    findings = diagnose(run_of(time__verdicts=4.0, completions__clipped_ratio=0.5))
    assert [finding.is_problem for finding in findings] == [True, False]


@pytest.mark.parametrize("known", [{"hpt__none_solved": 0.1}, {"hpt__solve_rate": 0.95}], ids=["failing", "solving"])
def test_low_entropy_is_no_problem_if_the_policy_solves_the_prompts(known):
    (finding,) = diagnose(run_of(entropy=[1.0] * 5 + [0.01] * 15, **known))
    assert (finding.kind, finding.is_problem) == (Kind.ENTROPY, False)
    assert "of them solve it" in finding.text
    assert "No action is needed" in finding.advice


def test_the_nll_of_a_few_hard_prompts_may_rise():
    (finding,) = diagnose(run_of(demonstrations__nll=linear(0.1, 2.0)))  # late, a quarter of the prompts or fewer
    assert finding.kind == Kind.NOTHING


def test_grpo_has_no_finding_about_the_gate():
    (finding,) = diagnose(run_of(facts=FACTS | {"gate": "off"}, hpt__demonstration_share=0.0))
    assert finding.kind == Kind.NOTHING


def test_a_norm_that_is_not_finite_counts_if_skipped_steps_were_not_logged():
    run = run_of(grad_norm=[0.5] * 18 + [float("nan"), float("inf")])
    del run.log["hpt/skipped_steps"]
    (finding,) = diagnose(run)
    assert finding.title == "2 optimizer steps skipped"


def test_few_steps_are_not_diagnosed():
    (finding,) = diagnose(run_of(steps=range(1, 4), **{"reward": 0, "hpt/solve_rate": 0, "hpt/demonstration_share": 0}))
    assert finding.kind == Kind.TOO_SHORT
    assert finding.text == "Only 3 steps logged; at least 5 are needed for a diagnosis."


def test_a_run_that_logged_only_the_loss_is_diagnosed_too():
    run = run_of()
    run.log.drop(columns=[name for name in run.log if name != "loss"], inplace=True)
    (finding,) = diagnose(run)
    assert finding.kind == Kind.NOTHING
