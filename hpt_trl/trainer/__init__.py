"""The trainer: GRPOTrainer that saves and resumes exactly, and HPTTrainer on top of it.

The only folder that may use private names of TRL, transformers and accelerate; `trl_hooks.py` checks all of them.
"""

from hpt_trl.trainer.hpt import HPTTrainer

__all__ = ["HPTTrainer"]
