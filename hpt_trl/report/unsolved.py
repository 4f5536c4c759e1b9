"""What happened to the prompts that no rollout solved, and what helps with them."""

from hpt_trl.report.run_folder import Run

_WARMUP = "begin with an SFT warm-up (algorithm: warmup_hpt)"


def unused_share(run: Run) -> float:
    """Share of the prompts, late in the run, that no rollout solved and that did not train on a demonstration.

    Late is the last quarter of the generations. Rollouts give no gradient for these prompts.

    Args:
        run: run with a gate history.

    Returns:
        NaN if nothing was generated.
    """
    history = run.gate
    if history is None:
        return float("nan")
    scored = history[history["solve_rate"].notna()]
    steps = scored["step"].unique()
    late = scored[scored["step"].isin(steps[-max(1, len(steps) // 4) :])]
    is_unused = (late["solve_rate"] == 0) & (late["demonstration"] + late["off_policy"] == 0)
    return float(is_unused.mean())


def advice_on_unsolved(run: Run) -> tuple[str, bool]:
    """What to do about prompts that no rollout solves, and whether something must be done.

    With demonstrations, HPT trains on them there; easier prompts are advice for runs without demonstrations.

    Args:
        run: any run.
    """
    if not run.has_gate:
        return (
            "Use easier prompts, more rollouts per prompt (num_generations), or HPT with demonstrations of the prompts "
            "that are not solved.",
            True,
        )
    unused = unused_share(run)
    had_warmup = bool(run.config.get("sft_warmup_steps"))
    if unused >= 0.05:
        warmup = "" if had_warmup else f" Or {_WARMUP} on those that there are."
        return (
            f"No rollout solved {unused:.0%} of the prompts, which trained on no demonstration either: nothing was "
            f"learned from them. Add demonstrations for them; `hpt-trl demonstrate` samples some.{warmup}",
            True,
        )
    longer = "train longer" if had_warmup else f"train longer, or {_WARMUP}"
    return (
        "Prompts that no rollout solves train on their demonstration, as HPT intends. If the solve rate does not rise, "
        f"{longer}.",
        False,
    )
