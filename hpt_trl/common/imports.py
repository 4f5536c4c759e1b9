"""Functions that a config or a command line names by dotted path, as in TRL's own scripts."""

import importlib
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAME = r"[^\W\d][\w-]*"


def is_dotted_path(name: str) -> bool:
    """Whether a name has the form `module.function`, with any number of packages before it.

    Example:
        >>> is_dotted_path("my_package.rewards.my_reward"), is_dotted_path("accuracy_reward"), is_dotted_path("0.5")
        (True, False, False)
    """
    return re.fullmatch(rf"{_NAME}(?:\.{_NAME})+", name) is not None


def import_callable(path: str, option: str) -> Callable[..., Any]:
    """Import the callable at a dotted path. Modules in the current directory come first, as in `trl grpo`.

    Args:
        path: `module.function`; the module may be in packages.
        option: name of the option with the path, for error messages.

    Raises:
        ImportError: if the module does not exist, fails while it is imported, or lacks the attribute.
        ValueError: if the attribute is a class or not callable.
    """
    module_name, name = path.rsplit(".", 1)
    # For the installed command, the first entry is the folder of the script. The entry stays, because the function may
    # import more modules when it is called.
    if sys.path[:1] != [os.getcwd()]:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name, f"{option} names {path!r}")
    if not hasattr(module, name):
        raise ImportError(
            f"{option} names {path!r}, but the module {module_name!r} has no attribute {name!r} "
            f"({getattr(module, '__file__', None)}). Correct the name, or define the function there."
        )
    function = getattr(module, name)
    if isinstance(function, type) or not callable(function):
        kind = "a class" if isinstance(function, type) else f"of type {type(function).__name__}"
        raise ValueError(f"{option} names {path!r}, which is {kind}. Name a function, or an object that is callable.")
    return function


def _import(name: str, source: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    # A module may raise anything while it is imported, and a script may exit.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ImportError(
                f"{source}, but there is no module {error.name!r} in the current directory or among the installed "
                "packages. Correct the path, or run the command in the folder of the module."
            ) from error
        raise ImportError(
            f"{source}, but importing the module {name!r} raised {type(error).__name__}: {error}. Fix the module; "
            "HPT_TRACEBACK=1 shows the traceback."
        ) from error
