"""Everything runs offline, on one thread, on a model of a few thousand parameters."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CI", "1")  # TRL sends no telemetry from CI
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# The same examples in every run, and none kept from an earlier one; how long an example takes depends on the machine.
settings.register_profile("hpt_trl", derandomize=True, database=None, deadline=None)
settings.load_profile("hpt_trl")

from tests.tiny import build_tiny_model  # noqa: E402  (torch must have its threads first)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a random Qwen2 model with a character tokenizer and a ChatML template."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
