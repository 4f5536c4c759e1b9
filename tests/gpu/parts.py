"""The parts of the check. Each runs in a process of its own and writes down every finding at once.

So a part that crashes, hangs or runs out of memory loses neither the others nor what it had found.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
import trl

from tests.gpu import equality, options, sharded, timing
from tests.gpu.setting import Check, Finding, Setting
from tests.launch import ROOT

# Deterministic kernels of cuBLAS; no network; no telemetry of TRL.
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1", "KINETO_LOG_LEVEL": "99",
}  # fmt: skip

# The most important parts first: the last ones may find no time left. Seconds at most, and the checks.
PARTS: dict[str, tuple[float, Callable[[Setting], Sequence[Check]]]] = {
    "equality": (180, lambda setting: equality.CHECKS),
    "time_small": (180, lambda setting: timing.SMALL),
    "options": (120, lambda setting: options.CHECKS),
    "sharded": (200, sharded.checks),
    "time_large": (150, lambda setting: timing.LARGE),
}


@contextmanager
def deterministic(is_wanted: bool) -> Iterator[None]:
    """Deterministic kernels where PyTorch has them; slower, so not for timing."""
    torch.use_deterministic_algorithms(is_wanted, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def run_part(setting: Setting, name: str, report: Callable[[Finding], None]) -> None:
    """Run the checks of a part in this process. A check that raises is a failed finding, and the next one runs."""
    with deterministic(name == "equality"):
        for check in PARTS[name][1](setting):
            begin = time.perf_counter()
            try:
                for finding in check(setting):
                    finding.more["elapsed"] = round(time.perf_counter() - begin, 1)
                    report(finding)
            except Exception as error:
                label = getattr(check, "__name__", name)
                end = traceback.format_exc()[-2000:]
                report(Finding(f"{label} ends without an error", repr(error)[:200], "", False, {"traceback": end}))


def run_isolated(command: Sequence[str], log: Path, seconds: float) -> str:
    """Run a command in a process group of its own, and end the group with it.

    Returns:
        What went wrong, with the end of the output; empty if nothing did.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            wrong = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            wrong = f"stopped after {seconds:.0f} s"
            process.terminate()  # the part ends the processes that it has launched
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"{wrong}. {log.read_text()[-2000:]}" if wrong else ""


def isolated_part(setting: Setting, name: str, seconds: float) -> list[Finding]:
    """Run a part in a process of its own, for a limited time."""
    folder = setting.run_folder(f"part_{name}")
    findings = folder / "findings.jsonl"
    findings.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu", "--device", setting.device, "--sizes", setting.sizes_name]
    command += ["--folder", str(setting.folder), "--part", name, "--out", str(findings)]
    wrong = run_isolated(command, folder / "output.txt", seconds)
    lines = findings.read_text().splitlines() if findings.exists() else []
    found = [Finding(**json.loads(line)) for line in lines]
    if wrong:
        found.append(Finding(f"{name}: the process ends well", wrong.partition(".")[0], "", False, {"output": wrong}))
    return found


def run_all_parts(setting: Setting, minutes: float, report: Callable[[str, list[Finding]], None]) -> None:
    """Run every part for which there is time, and report each when it is done."""
    end = time.monotonic() + 60 * minutes
    for name, (limit, _) in PARTS.items():
        seconds = min(limit, end - time.monotonic())
        if seconds < 20 and setting.device == "cuda":
            report(name, [Finding(f"{name}: there is time for it", "no", "yes", False)])
        else:
            report(name, isolated_part(setting, name, seconds))


def machine(device: str) -> dict[str, Any]:
    """What the check ran on."""
    card = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "card": card.name if card else "none: on the CPU",
        "card_gb": round(card.total_memory / 1e9, 1) if card else 0,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{module.__name__: module.__version__ for module in (trl, transformers, accelerate)},
    }
