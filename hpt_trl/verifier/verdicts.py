r"""Verdicts on completions, and the reward functions based on them.

The gate's solve rate comes from `accuracy_reward`. If there are several reward functions, such as `[accuracy_reward,
format_reward]`, the gate still reads `accuracy_reward` alone, unless `gate_reward` names another one. TRL's reward
functions can be combined with it: `trl.rewards.think_format_reward`, `get_repetition_penalty_reward`, and for length
`get_soft_overlong_punishment(max_completion_len, soft_punish_cache)` (DAPO, arXiv 2503.14476, eq. 13).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hpt_trl.common.formats import THINK
from hpt_trl.common.thinking import opens_thinking as ends_with_think
from hpt_trl.verifier.answers.boxes import after_thinking, last_boxed
from hpt_trl.verifier.answers.choices import choice_of_gold, final_choice
from hpt_trl.verifier.answers.golds import bare_gold, is_ambiguous
from hpt_trl.verifier.grader import Grader, Verdict

Completion = str | Sequence[dict[str, Any]]


@cache
def shared_grader() -> Grader:
    """The grader that all reward functions of this process share."""
    return Grader()


def completion_text(completion: Completion) -> str:
    """Text of one completion: the string itself, or the content of its last message.

    Example:
        >>> completion_text([{"role": "assistant", "content": "It is 5."}])
        'It is 5.'
    """
    if isinstance(completion, str):
        return completion
    content = (completion[-1].get("content") if completion else None) or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def final_answer(text: str) -> str | None:
    r"""Content of the last box after the reasoning, or None if there is none or the reasoning never ends.

    Example:
        >>> final_answer(r"<think>Perhaps \boxed{4}?</think> It is \boxed{5}.")
        '5'
        >>> final_answer(r"<think>Perhaps \boxed{4}?") is None
        True
    """
    answer = after_thinking(text)
    box = None if answer is None else last_boxed(answer)
    return None if box is None else box.strip()


def judge(
    completions: Sequence[Completion],
    solutions: Sequence[Any],
    grader: Grader | None = None,
    opens_thinking: Sequence[bool] | None = None,
) -> list[Verdict]:
    r"""Grade completions, each within bounded time and memory.

    The answer is the last `\boxed{}` after the last `</think>`; a completion with an unclosed `<think>` has no answer.
    If the gold answer is a single letter, A to J, statements such as "the answer is (C)" count too.

    Args:
        completions: texts or lists of messages.
        solutions: gold answers, one per completion: plain ("33"), LaTeX ("$33$"), boxed, a letter, or in a form of
            `verifier.answers.golds.bare_gold` such as "#### 33".
        grader: a grader with other limits. None uses the shared one (5 s and 1 GB per verdict).
        opens_thinking: whether the prompt of each completion ends with `<think>`. None: no prompt does.

    Returns:
        One verdict per completion.

    Raises:
        ValueError: if the numbers of completions and solutions differ.

    Example:
        >>> [str(verdict) for verdict in judge([r"\boxed{1/2}", r"\boxed{2}", "Half."], ["0.5", "0.5", "0.5"])]
        ['right', 'wrong', 'unparseable answer']
    """
    if len(completions) != len(solutions):
        raise ValueError(
            f"There must be one solution per completion, got {len(completions)} completions and {len(solutions)} "
            "solutions."
        )
    return _verdicts(*_answers(_complete_texts(completions, opens_thinking), solutions), grader)


def _complete_texts(completions: Sequence[Completion], opens_thinking: Sequence[bool] | None) -> list[str]:
    """The texts of completions, with the `<think>` that their prompt opens."""
    opened = opens_thinking or [False] * len(completions)
    pairs = zip(completions, opened, strict=True)
    return [(THINK if is_open else "") + completion_text(completion) for completion, is_open in pairs]


def _opened_by(prompts: Sequence[Any] | None) -> list[bool] | None:
    """Which prompts open `<think>`; of conversations, only the trainer knows."""
    if prompts is None:
        return None
    return [isinstance(prompt, str) and ends_with_think(prompt) for prompt in prompts]


def _answers(texts: Sequence[str], solutions: Sequence[Any]) -> tuple[list[str | None], list[str]]:
    golds = [
        "" if solution is None or solution != solution else _gold(str(solution), text)
        for solution, text in zip(solutions, texts)
    ]
    answers = [final_choice(text) if choice_of_gold(gold) else final_answer(text) for text, gold in zip(texts, golds)]
    return answers, golds


def _gold(solution: str, text: str) -> str:
    """The bare gold answer; of one that can be read in two ways, the reading that a completion answers."""
    return "A" if is_ambiguous(solution) and final_choice(text) == "A" else bare_gold(solution)


def _verdicts(answers: Sequence[str | None], golds: Sequence[str], grader: Grader | None) -> list[Verdict]:
    verdicts: list[Verdict | None] = []
    for answer, gold in zip(answers, golds):
        if not gold.strip():
            verdicts.append(Verdict.UNPARSEABLE_GOLD)
        elif letter := choice_of_gold(gold):
            verdicts.append(_choice_verdict(answer, letter))
        else:
            verdicts.append(None)
    pairs = [(answer or "", gold) for answer, gold, verdict in zip(answers, golds, verdicts) if verdict is None]
    graded = iter((grader or shared_grader()).judge(pairs) if pairs else ())
    return [next(graded) if verdict is None else verdict for verdict in verdicts]


def _choice_verdict(answer: str | None, gold_letter: str) -> Verdict:
    if answer is None or not answer.strip():
        return Verdict.UNPARSEABLE_ANSWER
    return Verdict.RIGHT if answer == gold_letter else Verdict.WRONG


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[Any],
    log_extra: Callable[[str, list], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    prompts: Sequence[Any] | None = None,
    opens_thinking: Sequence[bool] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""1 if a completion's answer equals the solution, 0 if not, None if the solution is unparseable. See `judge`.

    In contrast to `trl.rewards.accuracy_reward`, it accepts plain-text completions, uses the last box, ignores
    everything before the last `</think>`, supports units, intervals and multiple choice, and cannot hang: a verdict
    that takes longer than 5 s gives 0. The fraction of each verdict is logged as `verdicts/right`, `verdicts/wrong`,
    `verdicts/unparseable_answer`, `verdicts/unparseable_gold` and `verdicts/timed_out`.

    Args:
        completions: one text or list of messages per rollout.
        solution: gold answers, the `solution` column of the dataset.
        log_extra: TRL's hook for extra columns in the completions table: `answer`, `solution`, `verdict`.
        log_metric: TRL's hook for metrics.
        prompts: texts or conversations. A completion after a text that ends with `<think>` begins as a thought.
        opens_thinking: whether the prompt of each completion ends with `<think>`; the trainer passes it.
        kwargs: the other columns, ignored.

    Returns:
        One reward per rollout; rollouts with None are excluded from the solve rate.

    Example:
        >>> accuracy_reward([r"So \boxed{5}", r"So \boxed{6}", r"So \boxed{5}"], solution=["5", "$5$", ""])
        [1.0, 0.0, None]
    """
    answers, golds = _answers(_complete_texts(completions, opens_thinking or _opened_by(prompts)), solution)
    verdicts = _verdicts(answers, golds, None)
    if log_extra is not None:
        log_extra("answer", [answer or "" for answer in answers])
        log_extra("solution", golds)
        log_extra("verdict", [str(verdict) for verdict in verdicts])
    if log_metric is not None:
        for verdict in Verdict if verdicts else ():
            log_metric(f"verdicts/{verdict.replace(' ', '_')}", verdicts.count(verdict) / len(verdicts))
    return [None if verdict is Verdict.UNPARSEABLE_GOLD else float(verdict is Verdict.RIGHT) for verdict in verdicts]


def format_reward(
    completions: Sequence[Completion],
    prompts: Sequence[Any] | None = None,
    opens_thinking: Sequence[bool] | None = None,
    **kwargs: Any,
) -> list[float]:
    r"""1 if a completion has at most one thinking block, followed by exactly one boxed answer; else 0.

    In detail: there is at most one `</think>`; the only `<think>` before it is at the very start of the completion, or
    at the end of the generation prompt; and the rest has exactly one `\boxed{}`, closed and not empty. To check the
    tags alone, use `trl.rewards.think_format_reward`.

    Args:
        completions: one text or list of messages per rollout.
        prompts: as in `accuracy_reward`.
        opens_thinking: as in `accuracy_reward`.
        kwargs: the other columns, ignored.

    Returns:
        One reward per rollout, 0 or 1.

    Example:
        >>> format_reward([r"<think>2 + 3</think> \boxed{5}", r"\boxed{5}, no, \boxed{6}", "5"])
        [1.0, 0.0, 0.0]
    """
    texts = _complete_texts(completions, opens_thinking or _opened_by(prompts))
    return [float(_is_well_formed(text)) for text in texts]


def _is_well_formed(text: str) -> bool:
    thinking, _, answer = text.rpartition("</think>")
    thinking = thinking.lstrip().removeprefix("<think>")
    box = last_boxed(answer)
    has_one_box = box is not None and bool(box.strip()) and answer.count(r"\boxed") == 1
    return has_one_box and not any(tag in part for tag in ("<think>", "</think>") for part in (thinking, answer))
