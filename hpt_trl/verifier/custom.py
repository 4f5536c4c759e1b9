"""A verifier of your own: any reward function of TRL in the place of `accuracy_reward`, by name or dotted path."""

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpt_trl.common.imports import import_callable, is_dotted_path
from hpt_trl.common.thinking import OPENS_THINKING
from hpt_trl.verifier.grader import Verdict
from hpt_trl.verifier.verdicts import accuracy_reward, format_reward, judge

VERIFIERS: dict[str, Callable[..., Any]] = {"accuracy_reward": accuracy_reward, "format_reward": format_reward}
DEFAULT_VERIFIER = "accuracy_reward"

Verifier = Callable[[Sequence[Any], Sequence[str], Mapping[str, Sequence[Any]]], list[Verdict]]
"""Takes prompts (texts or messages), completions as texts, and the columns, `solution` among them."""


def verifier_help(judged: str) -> str:
    """Help of an option that takes a name for `named_verifier`; `judged` is what it judges, such as "completions"."""
    return (
        f"What judges the {judged}: any of {', '.join(VERIFIERS)}, or the dotted path of a TRL reward function of your "
        "own, such as my_module.my_reward; a reward of 1 means right."
    )


def named_verifier(name: str, option: str = "verifier") -> Verifier:
    """The verifier of a name or of the dotted path of a reward function.

    The function is called as TRL calls it: with `prompts`, `completions` (messages if the prompts are messages),
    `completion_ids`, and the columns as lists. There are no token ids here, so `completion_ids` is a list of None. A
    reward of at least 1 means right, None that the solution cannot be read, and anything else wrong.

    Args:
        name: `accuracy_reward`, `format_reward`, or a dotted path such as `my_module.my_reward`.
        option: name of the option, for error messages.

    Raises:
        ValueError: if it is neither.
        ImportError: if it cannot be imported.

    Example:
        >>> verifier = named_verifier("format_reward")
        >>> [str(verdict) for verdict in verifier(["1+1?", "1+1?"], [r"\\boxed{3}", "2"], {"solution": ["2", "2"]})]
        ['right', 'wrong']
    """
    if name == DEFAULT_VERIFIER:
        return lambda prompts, completions, columns: judge(
            completions, columns["solution"], opens_thinking=columns.get(OPENS_THINKING)
        )
    if name in VERIFIERS:
        reward = VERIFIERS[name]
    elif is_dotted_path(name):
        reward = import_callable(name, option)
    else:
        raise ValueError(
            f"{option} must be one of {sorted(VERIFIERS)} or a dotted path like my_module.my_reward, got {name!r}."
        )
    return lambda prompts, completions, columns: _verdicts(reward, name, prompts, completions, columns)


def _verdicts(
    reward: Callable[..., Any],
    name: str,
    prompts: Sequence[Any],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> list[Verdict]:
    messages = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, completions)
    ]
    rewards = reward(
        prompts=list(prompts),
        completions=messages,
        completion_ids=[None] * len(completions),
        **{column: list(values) for column, values in columns.items() if column not in ("prompt", "completion")},
    )
    if inspect.isawaitable(rewards):
        rewards = asyncio.run(_awaited(rewards))
    if not isinstance(rewards, Sequence) or len(rewards) != len(completions):
        raise ValueError(
            f"The verifier {name!r} must return a list of {len(completions)} rewards, got {rewards!r:.200}."
        )
    return [_verdict(value, name) for value in rewards]


async def _awaited(rewards: Any) -> Any:
    return await rewards


def _verdict(reward: Any, name: str) -> Verdict:
    if reward is None:
        return Verdict.UNPARSEABLE_GOLD
    if math.isnan(reward):
        raise ValueError(f"The verifier {name!r} returned NaN. Return None for a completion that cannot be judged.")
    return Verdict.RIGHT if reward >= 1 else Verdict.WRONG
