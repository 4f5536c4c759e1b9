"""Runs in a terminal: a run with TRL's completion table, next to another writing process; then a failing run."""

import subprocess
import sys

from transformers.utils import logging

from tests.tiny import make_trainer, parity_reward

# Like another rank: a separate process that writes to the same terminal.
OTHER = "import time\nfor i in range(30): print(f'other rank, line {i:02}.', flush=True); time.sleep(0.1)"


def chatty_reward(completions, trainer_state, **kwargs):
    """Logs through a handler that got its reference to stderr before there was a panel."""
    logging.get_logger("transformers").warning(f"warning at step {trainer_state.global_step}.")
    print(f"printed at step {trainer_state.global_step}.", flush=True)
    return parity_reward(**kwargs)


def failing_reward(trainer_state, **kwargs):
    if trainer_state.global_step == 2:
        raise ValueError("the verifier broke")
    return parity_reward(**kwargs)


def main(model, folder):
    trainer = make_trainer(
        model, folder, reward=chatty_reward, max_steps=6, disable_tqdm=False, log_completions=True,
        num_completions_to_print=1,
    )  # fmt: skip
    other = subprocess.Popen([sys.executable, "-c", OTHER])
    trainer.train()
    other.wait()
    print("the first run is over.", flush=True)
    make_trainer(model, folder, reward=failing_reward, disable_tqdm=False).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
