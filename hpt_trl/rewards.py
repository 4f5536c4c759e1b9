"""Is the answer right? Verdicts by math-verify, as a TRL reward function."""

import logging
import re
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

BOXED = "\\boxed{"


def completion_text(completion: str | Sequence[dict[str, Any]]) -> str:
    """Text of one completion: a string, or the content of the last of its messages."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed `\boxed{...}`, or None where there is none.

    math-verify takes the first box it finds; the answer is the last.
    """
    # One pass with a stack: a policy that collapses may repeat an opening box ten thousand times.
    answer: str | None = None
    answer_start = -1
    open_braces: list[int] = []
    for brace in re.finditer(r"[{}]", text):
        if brace.group() == "{":
            open_braces.append(brace.start())
        elif open_braces:
            start = open_braces.pop()
            if start > answer_start and text.endswith(BOXED, 0, start + 1):
                answer, answer_start = text[start + 1 : brace.start()], start
    return answer


def final_answer(text: str) -> str | None:
    """What a completion answers: the last box after its reasoning, or None if it never gets there."""
    _, closed, answer = text.rpartition("</think>")
    if not closed and "<think>" in text:
        return None
    return last_boxed(answer)


def _timeout() -> int | None:
    # math-verify interrupts sympy by SIGALRM, which Python delivers to the main thread only.
    if threading.current_thread() is threading.main_thread():
        return 5
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return None


@lru_cache(maxsize=4096)
def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return parse(text, parsing_timeout=_timeout())


@lru_cache(maxsize=65536)
def is_right(answer: str, solution: str) -> bool | None:
    r"""Whether two answers are mathematically equal.

    Args:
        answer: content of the completion's box.
        solution: gold answer: plain ("33"), LaTeX ("$33$") or boxed.

    Returns:
        The verdict, or None if math-verify cannot read the solution.
    """
    from math_verify import verify

    gold = _parse(solution) or _parse(f"{BOXED}{solution}}}")
    if not gold:
        return None
    return bool(verify(gold, _parse(f"{BOXED}{answer}}}"), timeout_seconds=_timeout()))


def accuracy_reward(
    completions: Sequence[str | Sequence[dict[str, Any]]],
    solution: Sequence[str],
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""1 if the last `\boxed{}` of a completion equals the solution, 0 if not, None if the solution is unreadable.

    Unlike `trl.rewards.accuracy_reward` it takes plain-text completions too, lets the last box decide, ignores what
    stands before the last `</think>`, and gives 0 to a `<think>` that is never closed.

    Args:
        completions: one text, or list of messages, a rollout.
        solution: gold answers, the data set's `solution` column.
        log_extra: TRL's hook for extra columns in the completions table.
        kwargs: the other columns, ignored.

    Returns:
        One reward a rollout; None counts in no solve rate.
    """
    answers = [final_answer(completion_text(completion)) for completion in completions]
    verdicts = [None if answer is None else is_right(answer, gold) for answer, gold in zip(answers, solution)]
    if log_extra is not None:
        log_extra("answer", [answer or "" for answer in answers])
    return [0.0 if answer is None else _as_reward(right) for answer, right in zip(answers, verdicts)]


def _as_reward(verdict: bool | None) -> float | None:
    return None if verdict is None else float(verdict)
