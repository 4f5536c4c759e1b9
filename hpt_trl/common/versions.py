"""Versions of what takes part in a run or an evaluation."""

import platform
from collections.abc import Iterable
from importlib import metadata

import hpt_trl


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Versions of hpt_trl, of Python, and of those packages that are installed.

    Args:
        packages: names to import them by, or of their distributions.
    """
    found = {name: version for name in packages if (version := _version(name)) is not None}
    return {"hpt_trl": hpt_trl.__version__, **found, "python": platform.python_version()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # vLLM's distribution has another name for a CPU.
        distributions = metadata.packages_distributions().get(package, [])
        return metadata.version(distributions[0]) if distributions else None
