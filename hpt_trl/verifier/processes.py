"""Python processes that are connected to this one by a socket, and import the same modules.

They are started with `subprocess`. `multiprocessing`, and pebble, which builds on it, would import the user's script
again, which breaks scripts without a main guard and `python -`, and would refuse to start from daemonic processes.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import hpt_trl


def start_python(
    code: str, channel: socket.socket, environment: Mapping[str, str] | None = None, is_silent: bool = False
) -> subprocess.Popen:
    """Start Python, with the other end of a socket as its standard input.

    Args:
        code: what it runs.
        channel: the end of the new process, which is closed here.
        environment: its environment variables; None: those of this process.
        is_silent: whether its standard output and its warnings are discarded.
    """
    # The same modules as in this process, whatever its working directory.
    search_path = [str(Path(hpt_trl.__file__).parents[1]), *(entry or os.getcwd() for entry in sys.path)]
    warnings = ["-W", "ignore"] if is_silent else []
    with channel:
        return subprocess.Popen(
            [sys.executable, "-P", *warnings, "-c", code],
            stdin=channel.fileno(),
            stdout=subprocess.DEVNULL if is_silent else None,
            env={**(os.environ if environment is None else environment), "PYTHONPATH": os.pathsep.join(search_path)},
            start_new_session=True,  # Ctrl-C goes to the parent only
        )
