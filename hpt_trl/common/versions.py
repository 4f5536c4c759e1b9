"""Versions of the packages that a run or an evaluation uses."""

import platform
from collections.abc import Iterable
from importlib import metadata

import hpt_trl


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of hpt_trl, of Python, and of those packages that are installed.

    Args:
        packages: import names or distribution names.
    """
    installed = {name: version for name in packages if (version := _version(name)) is not None}
    return {"hpt_trl": hpt_trl.__version__, **installed, "python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # The CPU build of vLLM has another distribution name.
        distributions = metadata.packages_distributions().get(package, [])
        return metadata.version(distributions[0]) if distributions else None
