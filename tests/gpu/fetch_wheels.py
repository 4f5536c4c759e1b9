"""Fetch the wheels that `make gpu-check` needs and a CUDA image lacks: `python -m tests.gpu.fetch_wheels wheels`.

Expected on the image: Python 3.12, PyTorch 2.11 or newer, transformers 5.17 or newer, accelerate 1.15, peft, pandas and
pyarrow. On the image, without a network:

    python -m pip install --no-index --no-deps wheels/*.whl
    python -m tests.gpu --out DIR

DeepSpeed is published as source, and its wheel is built here: for that, PyTorch must be installed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Of these the image may have other versions, which would do too.
PACKAGES = (
    "trl", "datasets", "dill", "multiprocess", "math-verify", "latex2sympy2_extended", "antlr4-python3-runtime",
    "bitsandbytes", "hjson", "pydantic", "pydantic_core", "annotated-types", "typing-inspection", "xxhash",
)  # fmt: skip
BUILT = ("deepspeed",)
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 31, 34)] + ["manylinux2014_x86_64"]
MEGABYTES = 60


def pins() -> dict[str, str]:
    """Tested versions by name, as constraints.txt writes them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def requirements(names: tuple[str, ...]) -> list[str]:
    """Pinned requirements of packages."""
    versions = {name.lower().replace("_", "-"): version for name, version in pins().items()}
    return [f"{name}=={versions[name.lower().replace('_', '-')]}" for name in names]


def commands(folder: Path) -> list[list[str]]:
    """The calls of pip that fetch and build everything."""
    pip = [sys.executable, "-m", "pip"]
    target = ["--only-binary", ":all:", "--python-version", PYTHON, "--implementation", "cp"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return [
        [*pip, "download", "--no-deps", "-d", str(folder), *target, *platforms, *requirements(PACKAGES)],
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), *requirements(BUILT)],
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m tests.gpu.fetch_wheels", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--list", action="store_true", help="print what would be fetched, and fetch nothing")
    args = parser.parse_args()
    if args.list:
        print("\n".join(requirements(PACKAGES + BUILT)))
        return
    for command in commands(args.folder):
        subprocess.run(command, check=True)
    sizes = {wheel.name: wheel.stat().st_size / 1e6 for wheel in sorted(args.folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size:6.1f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total:6.1f} MB  in all")
    if total > MEGABYTES:
        sys.exit(f"The wheels take {total:.0f} MB, which is more than {MEGABYTES} MB.")


if __name__ == "__main__":
    main()
