"""Check the trainer on one CUDA GPU: `python -m tests.gpu --out DIR`.

Prints a table, and writes DIR/gpu_check.json after every part. The exit code is 1 if a goal was not met.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from hpt_trl.commands.benchmark import silence_libraries
from tests.gpu.parts import ENVIRONMENT, PARTS, machine, run_all_parts, run_part
from tests.gpu.setting import SIZES, Finding, Setting

MINUTES = 8.5


def table(findings: list[Finding]) -> Table:
    """Every finding as a row."""
    rows = Table("check", "found", "goal", "met")
    for finding in findings:
        met = {None: "", True: "yes", False: "[red]no[/red]"}[finding.passed]
        rows.add_row(finding.name, finding.value, finding.goal, met)
    return rows


def check_everything(setting: Setting, minutes: float, results_file: Path) -> bool:
    """Run all parts; returns whether every goal was met."""
    begin, findings = time.monotonic(), list[Finding]()

    def report(name: str, found: list[Finding]) -> None:
        findings.extend(found)
        seconds = time.monotonic() - begin
        print(f"{name}: {len(found)} findings, {seconds:.0f} s in all", file=sys.stderr, flush=True)
        results = {"machine": machine(setting.device), "sizes": setting.sizes_name, "seconds": round(seconds)}
        results["findings"] = [each.as_dict() for each in findings]
        results_file.write_text(json.dumps(results, indent=1) + "\n")

    run_all_parts(setting, minutes, report)
    Console(width=None if sys.stdout.isatty() else 140).print(table(findings))
    return all(finding.passed is not False for finding in findings)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m tests.gpu", description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for gpu_check.json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", choices=tuple(SIZES), default="full")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time limit of all parts together")
    # What a part is started with.
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA GPU here. `--device cpu --sizes tiny` tries the check itself without one.")
    os.environ |= ENVIRONMENT
    silence_libraries()
    if args.part:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        with args.out.open("a") as file:
            setting = Setting(args.device, args.sizes, args.folder)
            run_part(setting, args.part, lambda each: print(json.dumps(each.as_dict()), file=file, flush=True))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(args.device, args.sizes, Path(folder))
        is_good = check_everything(setting, args.minutes, args.out / "gpu_check.json")
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
