"""Removal of secrets and of the home folder from everything that is displayed or saved."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SECRET_NAME = re.compile(r"(token|password|passwd|secret|api_?key|access_key)$", re.IGNORECASE)
_TOKEN = re.compile(r"(hf|api_org)_\w{20,}")
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
# A shorter value, such as "1" or "none", also stands in texts where it is no secret.
_MIN_SECRET_LENGTH = 8


def mask_tokens(text: str) -> str:
    """The text without tokens of the Hub, passwords in addresses, and values of secret environment variables."""
    text = _PASSWORD_IN_URL.sub("***", _TOKEN.sub(r"\1_***", text))
    for name, value in os.environ.items():
        if len(value) >= _MIN_SECRET_LENGTH and _SECRET_NAME.search(name) and value in text:
            text = text.replace(value, "***")
    return text


def masked(content: Any) -> Any:
    """The content with secrets masked in all texts, at any depth."""
    if isinstance(content, Mapping):
        return {key: masked(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(map(masked, content))
    return mask_tokens(content) if isinstance(content, str) else content


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
