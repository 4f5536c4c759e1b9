"""The committed launch configs on the processes of one CPU: each YAML itself, but for the hardware it names."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "accelerate"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))

# What of a launch config is the machine's. Port 0: any that is free.
TWO_CPUS = {"mixed_precision": "no", "num_machines": 1, "num_processes": 2, "main_process_port": 0}
TWO_NODES = {"mixed_precision": "no", "num_machines": 2, "num_processes": 2}


def cpu_form(name: str, folder: Path, hardware: dict | None = None) -> Path:
    """Write `configs/accelerate/<name>.yaml` for two processes on a CPU, one where the config is of one; its path."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    changes = hardware or TWO_CPUS
    if config["distributed_type"] == "NO":
        changes = changes | {"num_processes": 1}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def accelerate(config: Path, *arguments: str) -> list[str]:
    """The command `accelerate launch --config_file config ...`."""
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), *arguments]


def run_all(commands: Sequence[Sequence[str]], folder: Path, seconds: float) -> None:
    """Run commands side by side, until all have ended well, and leave no process behind.

    Args:
        commands: what to run, from the repository.
        folder: where their output goes.
        seconds: time limit of each.

    Raises:
        subprocess.TimeoutExpired: if one takes longer.
        AssertionError: with the end of its output, if one fails.
    """
    # DeepSpeed's compiler calls ninja, which pip puts beside python.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    logs = [folder / f"output_{number}.txt" for number in range(len(commands))]
    processes = []
    try:
        for command, log in zip(commands, logs):
            with log.open("w") as output:
                processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
                    )
                )
        for process, log in zip(processes, logs):
            assert process.wait(seconds) == 0, log.read_text()[-6000:]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
