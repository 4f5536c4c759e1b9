"""Trials of the breaker that train nothing, or that only ask whether a run ends well or in one paragraph."""

import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpt_trl import HPTConfig
from hpt_trl.common.masking import mask_tokens, masked, safe_command, without_secrets
from tests.tiny import ROWS, parity_reward
from tests.verifier import functions

NAN, INFINITY = float("nan"), float("inf")
# Values of options that no run can be made with.
REFUSED: dict[str, list[Any]] = {
    "gate": ["none", "no_module.no_gate", "tests.tiny.ROWS", ""],
    "gate_threshold": [NAN, INFINITY, -0.5, 1.5, -INFINITY],
    "gate_off_policy_threshold": [NAN, -1.0, 2.0],
    "gate_success_value": [NAN, INFINITY],
    "gate_table": ["[]", "{", '{"x": 1}'],
    "sft_weight": [NAN, INFINITY, -1.0],
    "sft_normalization": ["row", ""],
    "sft_warmup_steps": [-1],
    "demonstration_overflow": ["drop", ""],
    "max_demonstration_length": [0, -3],
    "max_tokens_per_forward": [0, -1],
    "skip_grad_norm_above": [NAN, 0.0, -1.0],
    "max_skipped_steps_in_row": [0, -1, NAN],
    "reward_timeout": [NAN, INFINITY, 0.0, -1.0, 1e300],
    "algorithm": ["dpo", ""],
    "num_generations": [0, -1],
    "learning_rate": [NAN, INFINITY, -1.0, 3e38],
    "enable_jit_checkpoint": [True],
}  # fmt: skip
# What no prompt, demonstration or solution should be.
ODD_VALUES: list[Any] = [
    None, 0, 5, -1.5, NAN, True, b"x", b"", "", " ", "\x00", "\ud800", "a" * 5000, [], [None], ["a"], [[]], {}, [5],
    {"content": 5}, {"role": "user", "content": None}, [{"role": "user", "content": "2"}], [{"role": "assistant"}],
    [{"role": None, "content": []}],
]  # fmt: skip
# Reward functions, in processes of their own, that never return, or end their process.
IMPOSSIBLE = [
    "hangs", "hangs_async", "keeps_the_interpreter_lock", "blocks_the_event_loop", "logs_forever", "raises", "exits",
    "dies",
]  # fmt: skip


def refused_option(draw: random.Random, folder: Path) -> str | None:
    """A value that is refused by name, in one paragraph, before anything is loaded."""
    name = draw.choice(sorted(REFUSED))
    value = draw.choice(REFUSED[name])
    options = {"gate": "table"} if name == "gate_table" else {}
    try:
        HPTConfig(str(folder), use_cpu=True, bf16=False, max_steps=5, **options | {name: value})
    except (ValueError, ImportError, TypeError) as error:
        return None if name in str(error) else f"{name}={value!r} is not named: {error}"
    return f"{name}={value!r} was accepted"


def secret(draw: random.Random, folder: Path) -> str | None:
    """A secret of known shape or of the environment, somewhere in what is shown or saved."""
    letters = "".join(draw.choices(string.ascii_letters + string.digits, k=draw.randrange(20, 40)))
    hidden = draw.choice([f"hf_{letters}", f"api_org_{letters}"])
    where = draw.choice([f"{hidden}", f"x={hidden};", f"https://u:{hidden}@proxy:80", f"('{hidden}',)", f"é{hidden}\n"])
    name = draw.choice(["hub_token", "token", "api_key", "password", "wandb_api_key", "description", "proxies"])
    nested: Any = where
    for _ in range(draw.randrange(4)):
        nested = draw.choice([{"a": nested}, [nested, 1], {name: nested}])
    outlets: dict[str, Callable[[], Any]] = {
        "mask_tokens": lambda: mask_tokens(f"before {where} after"),
        "masked": lambda: masked({"x": nested}),
        "without_secrets": lambda: without_secrets({"x": nested}),
        "command": lambda: safe_command("hpt-trl train", ["--a", "1", f"--{name}", where, "--b", f"--{name}={where}"]),
        "repr": lambda: repr(HPTConfig(str(folder), use_cpu=True, bf16=False, hub_token=hidden, run_name=where)),
        "to_dict": lambda: HPTConfig(str(folder), use_cpu=True, bf16=False, hub_token=hidden).to_dict(),
    }
    outlet = draw.choice(sorted(outlets))
    shown = str(outlets[outlet]())
    return f"{outlet} shows the secret in {where!r}, nested in {nested!r}" if hidden in shown else None


def odd_rows(draw: random.Random) -> list[dict[str, Any]]:
    """The rows of the tiny runs, where one value, or a column, is odd."""
    rows: list[dict[str, Any]] = [dict(row) for row in ROWS]
    column, value = draw.choice(["prompt", "demonstration", "solution"]), draw.choice(ODD_VALUES)
    for row in rows if draw.random() < 0.3 else [draw.choice(rows)]:
        row[column] = value
    return rows


def impossible_reward(draw: random.Random) -> Callable[..., Any]:
    """A reward function that never returns, or ends its process."""
    return getattr(functions, draw.choice(IMPOSSIBLE))


def leaking_reward(hidden: str, raises: bool) -> Callable[..., Any]:
    """A reward function that logs a secret, or raises an error that quotes it."""

    def leaking(completion_ids: list, log_extra: Any = None, **kwargs: Any) -> list[float]:
        if raises:
            raise ValueError(f"401 for {hidden}")
        log_extra("header", [f"Bearer {hidden}"] * len(completion_ids))
        return parity_reward(completion_ids)

    return leaking


def files_with(folder: Path, hidden: str) -> list[str]:
    """Files below a folder that hold a text as it is or as JSON writes it."""
    wanted = {hidden.encode(), json.dumps(hidden)[1:-1].encode()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(folder)) for path in files if any(text in path.read_bytes() for text in wanted)]


def advised_options(message: str) -> dict[str, Any]:
    """What the message of a diverged run advises to add to the command, as arguments of `train`."""
    match = re.search(r"add `(--\w+) (\w+) --learning_rate (\S+)` to the command", message)
    if match is None:
        raise ValueError(f"no advice in {message[-300:]}")
    option = {"resume": match[2]} if match[1] == "--resume_from_checkpoint" else {match[1][2:]: True}
    return option | {"learning_rate": float(match[3])}
