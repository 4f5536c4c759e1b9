"""Removal of secrets and of the home folder from everything that is displayed or saved."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SECRET_NAME = re.compile(r"(token|password|secret|api_key)$")
_HUB_TOKEN = re.compile(r"hf_\w{20,}")


def mask_tokens(text: str) -> str:
    """The text with Hub tokens masked."""
    return _HUB_TOKEN.sub("hf_***", text)


def safe_command(prog: str, argv: Sequence[str]) -> str:
    """The command line without secrets, and with the home folder as `~`."""
    words, is_value = [], False
    for word in argv:
        option = word.partition("=")[0]
        is_secret = option.startswith("--") and _SECRET_NAME.search(option) is not None
        if not (is_secret or is_value):
            words.append(_without_home(mask_tokens(word)))
        is_value = is_secret and "=" not in word
    return f"{prog} {shlex.join(words)}".strip()


def without_secrets(content: Any) -> Any:
    """The configuration without keys that name secrets, and with tokens masked in all values."""
    if isinstance(content, Mapping):
        return {key: without_secrets(value) for key, value in content.items() if not _SECRET_NAME.search(str(key))}
    if isinstance(content, list):
        return [without_secrets(value) for value in content]
    return _without_home(mask_tokens(content)) if isinstance(content, str) else content


def _without_home(text: str) -> str:
    home = str(Path.home())
    return text.replace(home + "/", "~/") if len(home) > 1 else text
