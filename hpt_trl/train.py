"""The training script: `accelerate launch -m hpt_trl.train --config X.yaml`, or `hpt-trl train --config X.yaml`."""

import sys

from hpt_trl.commands.train import REWARDS, HPTScriptArguments, build_trainer, main, run

__all__ = ["REWARDS", "HPTScriptArguments", "build_trainer", "main", "run"]

if __name__ == "__main__":
    main(sys.argv[1:])
