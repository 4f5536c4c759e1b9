r"""Is the answer right? Verdicts on completions, and the reward functions made of them.

`accuracy_reward` is what the gate listens to. Other signals go beside it, `[accuracy_reward, format_reward]`, and stay
out of the gate's: it listens to `accuracy_reward` wherever that is one of several, unless `gate_reward` names another.
TRL's own go with it too: `trl.rewards.think_format_reward`, `get_repetition_penalty_reward`, and for length
`get_soft_overlong_punishment(max_completion_len, soft_punish_cache)` (DAPO, arXiv 2503.14476, eq. 13).
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hpt_trl.verifier.answers.spelling import after_thinking, last_box_span, last_boxed
from hpt_trl.verifier.grader import Grader, Verdict

Completion = str | Sequence[dict[str, Any]]

_CHOICE = re.compile(r"[A-J]")
_LETTER = re.compile(
    r"(?:\\(?:text|textbf|textit|mathrm|mathbf|rm|bf)\s*\{|[\s(${*]|(?:option|choice|answer)\b)*([A-Ja-j])"
    r"(?![a-zA-Z])[\s)}$*]*(?:[).:](?!\d).*)?",
    re.DOTALL | re.IGNORECASE,
)
# The following read whole completions in this process, so nothing in them may take more than one pass.
_MARKUP = re.compile(r"[*_${}]|\\(?:text|textbf|mathrm|mathbf|boxed|[()])")
# Upper case only, and nothing behind it that would make it a word: "the answer is a dog", "is C or D".
_STATEMENT = re.compile(
    r"(?i:\b(?:answer|option|choice)) ?(?:(?i:is) ?:?|[:=]) ?(?:(?i:option|choice) )?"
    r"(?:\(([A-J])\)|([A-J])(?= ?(?:[.,;:!)\]]|\n|$|because\b|since\b|as\b)))"
)
_LAST_LINE = re.compile(r"(?:(?i:so|thus|hence|therefore)[,:]? )?(?:\(([A-J])\)|([A-J])(?=[).:]|$))(.*)")


@cache
def shared_grader() -> Grader:
    """The workers that every reward function of this process shares."""
    return Grader()


def completion_text(completion: Completion) -> str:
    """Text of one completion: a string, or the content of the last of its messages.

    Example:
        >>> completion_text([{"role": "assistant", "content": "It is 5."}])
        'It is 5.'
    """
    if isinstance(completion, str):
        return completion
    content = (completion[-1].get("content") if completion else None) or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def final_answer(text: str) -> str | None:
    r"""What a completion answers: the last box after its reasoning, or None if it never gets there.

    Example:
        >>> final_answer(r"<think>Perhaps \boxed{4}?</think> It is \boxed{5}.")
        '5'
        >>> final_answer(r"<think>Perhaps \boxed{4}?") is None
        True
    """
    answer = after_thinking(text)
    box = None if answer is None else last_boxed(answer)
    return None if box is None else box.strip()


def letter_of(text: str) -> str | None:
    r"""The letter that all of a text names (`C`, `(C)`, `\text{C}`, `C) 42`), or None.

    Example:
        >>> letter_of(r"\text{(C)}"), letter_of("C is right")
        ('C', None)
    """
    found = _LETTER.fullmatch(text.strip())
    return found[1].upper() if found else None


def final_choice(text: str) -> str | None:
    """The letter A to J that a completion chooses, after its reasoning; the last statement decides.

    A statement is a box, "the answer is (C)", "Answer: C", or a last line that holds nothing but the choice. Prose in
    which the letter occurs is none.

    Example:
        >>> final_choice("A is tempting, but the answer is (C).")
        'C'
    """
    answer = after_thinking(text)
    if answer is None:
        return None
    span = last_box_span(answer)
    plain = _MARKUP.sub("", answer if span is None else answer[span[1] :])
    plain = re.sub(r"\s+", lambda space: "\n" if "\n" in space[0] else " ", plain).strip()
    statements = _STATEMENT.findall(plain)
    if statements:
        return "".join(statements[-1])
    if span is not None:
        box = answer[slice(*span)]
        return letter_of(box) or box
    found = _LAST_LINE.fullmatch(plain.rpartition("\n")[2])
    is_alone = found is not None and (found[3].startswith(")") or not found[3].strip(" .)"))
    return (found[1] or found[2]) if found is not None and is_alone else None


def judge(completions: Sequence[Completion], solutions: Sequence[Any], grader: Grader | None = None) -> list[Verdict]:
    r"""Verdicts on completions, each within bounded time and memory.

    What counts is the last `\boxed{}` after the last `</think>`; a `<think>` that is never closed has no answer. Where
    the gold answer is one letter, A to J, "the answer is (C)" and the like count too.

    Args:
        completions: one text, or list of messages, each.
        solutions: their gold answers: plain ("33"), LaTeX ("$33$"), boxed, or a letter.
        grader: worker processes of your own limits; None: the ones all share (5 s and 1 GB a verdict).

    Returns:
        One verdict for each completion.

    Raises:
        ValueError: if there are not as many solutions as completions.

    Example:
        >>> [str(verdict) for verdict in judge([r"\boxed{1/2}", r"\boxed{2}", "Half."], ["0.5", "0.5", "0.5"])]
        ['right', 'wrong', 'unparseable answer']
    """
    if len(completions) != len(solutions):
        raise ValueError(f"Every completion needs its solution, got {len(completions)} and {len(solutions)}.")
    return _verdicts(*_answers(completions, solutions), grader)


def _answers(completions: Sequence[Completion], solutions: Sequence[Any]) -> tuple[list[str | None], list[str]]:
    golds = ["" if solution is None or solution != solution else str(solution) for solution in solutions]
    texts = [completion_text(completion) for completion in completions]
    return [final_choice(text) if _is_choice(gold) else final_answer(text) for text, gold in zip(texts, golds)], golds


def _is_choice(gold: str) -> bool:
    letter = letter_of(last_boxed(gold) or gold)
    return letter is not None and re.sub(r"\\text|[\s(){}$]|\\boxed", "", gold) == letter


def _verdicts(answers: Sequence[str | None], golds: Sequence[str], grader: Grader | None) -> list[Verdict]:
    verdicts: list[Verdict | None] = []
    for answer, gold in zip(answers, golds):
        if not gold.strip():
            verdicts.append(Verdict.UNPARSEABLE_GOLD)
        elif _is_choice(gold):
            verdicts.append(_choice_verdict(answer, letter_of(last_boxed(gold) or gold)))
        else:
            verdicts.append(None)
    pairs = [(answer or "", gold) for answer, gold, verdict in zip(answers, golds, verdicts) if verdict is None]
    judged = iter((grader or shared_grader()).judge(pairs) if pairs else ())
    return [next(judged) if verdict is None else verdict for verdict in verdicts]


def _choice_verdict(answer: str | None, right: str | None) -> Verdict:
    if answer is None or not answer.strip():
        return Verdict.UNPARSEABLE_ANSWER
    return Verdict.RIGHT if answer == right else Verdict.WRONG


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[Any],
    log_extra: Callable[[str, list], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""1 if a completion's answer equals the solution, 0 if not, None if the solution is unreadable. See `judge`.

    Unlike `trl.rewards.accuracy_reward` it takes plain-text completions too, lets the last box decide, ignores what
    stands before the last `</think>`, knows units, intervals and multiple choice, and cannot hang: a verdict that takes
    longer than 5 s is a 0. The shares of verdicts are logged as `verdicts/right`, `verdicts/wrong`,
    `verdicts/unparseable_answer`, `verdicts/unparseable_gold` and `verdicts/timed_out`.

    Args:
        completions: one text, or list of messages, a rollout.
        solution: gold answers, the data set's `solution` column.
        log_extra: TRL's hook for extra columns in the completions table: `answer`, `solution`, `verdict`.
        log_metric: TRL's hook for metrics.
        kwargs: the other columns, ignored.

    Returns:
        One reward a rollout; None counts in no solve rate.

    Example:
        >>> accuracy_reward([r"So \boxed{5}", r"So \boxed{6}", r"So \boxed{5}"], solution=["5", "$5$", ""])
        [1.0, 0.0, None]
    """
    answers, golds = _answers(completions, solution)
    verdicts = _verdicts(answers, golds, None)
    if log_extra is not None:
        log_extra("answer", [answer or "" for answer in answers])
        log_extra("solution", golds)
        log_extra("verdict", [str(verdict) for verdict in verdicts])
    if log_metric is not None:
        for kind in Verdict if verdicts else ():
            log_metric(f"verdicts/{kind.replace(' ', '_')}", verdicts.count(kind) / len(verdicts))
    return [None if verdict is Verdict.UNPARSEABLE_GOLD else float(verdict is Verdict.RIGHT) for verdict in verdicts]


def format_reward(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""1 if a completion thinks at most once, within tags, and then boxes one answer; else 0.

    That is: no `</think>`, or one, before which the only `<think>` stands in front of everything (the generation prompt
    may have written it); and after it exactly one `\boxed{}`, closed, with something in it. For tags alone, take
    `trl.rewards.think_format_reward`.

    Args:
        completions: one text, or list of messages, a rollout.
        kwargs: the other columns, ignored.

    Returns:
        One reward a rollout, 0 or 1.

    Example:
        >>> format_reward([r"<think>2 + 3</think> \boxed{5}", r"\boxed{5}, no, \boxed{6}", "5"])
        [1.0, 0.0, 0.0]
    """
    return [float(_is_well_formed(completion_text(completion))) for completion in completions]


def _is_well_formed(text: str) -> bool:
    thought, _, answer = text.rpartition("</think>")
    thought = thought.lstrip().removeprefix("<think>")
    box = last_boxed(answer)
    has_one_box = box is not None and bool(box.strip()) and answer.count(r"\boxed") == 1
    return has_one_box and not any(tag in part for tag in ("<think>", "</think>") for part in (thought, answer))
