"""vLLM through TRL's own options: what a config may ask of it; and, where vLLM is installed, its engine in the trainer.

`make test-vllm` runs these in an environment that has vLLM's CPU build.
"""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpt_trl import HPTConfig
from hpt_trl.miniature import MODEL_PATH
from hpt_trl.trainer.checks import check_served_model
from tests.tiny import make_trainer, relative_error

ROOT = Path(__file__).parents[2]
SECONDS = 600

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here: `make test-vllm`"
)


def launch(name, folder):
    """One run of tests/trainer/vllm_worker.py; the engine's processes end with it, or at the time limit."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CACHE_ROOT": str(folder.parent / "vllm_cache")}  # for all runs
    command = [sys.executable, "-m", "tests.trainer.vllm_worker", name, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors[-3000:]
    return torch.load(folder / "results.pt", weights_only=True)


@needs_vllm
@pytest.mark.parametrize("name", ["full", "adapter"])
def test_every_sync_serves_the_policy_of_that_step(tmp_path, name):
    results = launch(name, tmp_path)
    # Before each of three generations, and before the evaluation that follows the third step.
    assert len(results["notes"]) == 4
    for step, note in enumerate(results["notes"]):
        assert (note["after"] - note["policy"]).abs().max() < 1e-4
        # The step moved the policy away from what was served until then; the folder's own weights are the first policy.
        stale = (note["before"] - note["policy"]).abs().mean()
        assert stale > 0.01 if step else stale < 1e-4
    logged = json.loads(results["log"])
    # None where no rollout had signal: none was computed.
    differences = [entry["sampling/sampling_logp_difference/max"] for entry in logged]
    assert [found is None for found in differences] == [entry["hpt/signal_share"] == 0 for entry in logged]
    assert max(found or 0.0 for found in differences) < 1e-3
    gates = pd.read_parquet(tmp_path / "gate.parquet")
    assert ((gates["solve_rate"] <= 0.5) == (gates["demonstration"] == 1)).all()
    assert gates["demonstration"].nunique() == 2
    shares = gates.groupby("step")["demonstration"].mean().tolist()
    assert shares == [entry["hpt/demonstration_share"] for entry in logged]


def parts_by_hand(rows, rollout_prompts, demonstration_prompts, ratios):
    """Gradient of 4 prompts x 4 rollouts: dr_grpo times the ratio, and plain cross-entropy of the demonstrations."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL_PATH), AutoTokenizer.from_pretrained(MODEL_PATH)

    def nll(prompt, answer):
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        return cross_entropy(logits, torch.tensor(answer), reduction="none")

    losses = []
    for row in range(16):
        prompt = rows["prompt_ids"][row][rows["prompt_mask"][row].bool()].tolist()
        if row // 4 in rollout_prompts:
            completion = rows["completion_ids"][row][rows["completion_mask"][row].bool()].tolist()
            # Of 16 rows, each a sum over its tokens divided by max_completion_length, 24.
            losses.append(rows["advantages"][row] * ratios[row] * nll(prompt, completion).sum() / (16 * 24))
        if row % 4 == 0 and row // 4 in demonstration_prompts:
            answer = [*tokenizer(rows["demonstrations"][row // 4])["input_ids"], tokenizer.eos_token_id][:24]
            losses.append(nll(prompt, answer).mean() / 4)
    sum(losses).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@needs_vllm
def test_the_importance_ratio_corrects_rollouts_and_leaves_demonstrations_alone(tmp_path):
    """vLLM samples in bfloat16 and the policy is float32, so that the ratios are not 1."""
    results = launch("ratios", tmp_path)
    uncorrected = torch.ones(16)
    prompts = {0: ([], range(4)), 1: (range(4), []), 2: ([0, 1], [2, 3])}  # as the worker's gate says
    for step, (rollouts, demonstrations) in prompts.items():
        rows, found = results["generated"][step], results["gradients"][step]
        ratios = rows["importance_sampling_ratio"].squeeze(1)
        has_signal = rows["advantages"] != 0
        assert (ratios[~has_signal] == 1).all()
        assert has_signal.any() == bool(rollouts)
        assert not rollouts or (ratios[has_signal] - 1).abs().max() > 1e-3
        assert relative_error(found, parts_by_hand(rows, rollouts, demonstrations, ratios)) < 1e-4
        if rollouts:
            assert relative_error(found, parts_by_hand(rows, rollouts, demonstrations, uncorrected)) > 1e-3


@needs_vllm
def test_vllm_understands_the_server_command_of_the_config():
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    text = (ROOT / "configs" / "vllm" / "server.yaml").read_text()
    command = re.search(r"vllm serve (.*?)\n# then", text, re.DOTALL).group(1)
    model, *flags = shlex.split(command.replace("\\\n#", " "))
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", model, *flags])
    config = yaml.safe_load(text)
    assert model == config["model_name_or_path"]
    assert config["vllm_server_base_url"] == f"http://{args.host}:{args.port}"
    assert args.logprobs_mode == "processed_logprobs"
    assert args.weight_transfer_config.backend == "nccl"


COLOCATED = {"use_cpu": True, "bf16": False, "use_vllm": True, "vllm_mode": "colocate"}


def test_a_model_that_vllm_would_not_serve_is_refused(tiny_model, tmp_path):
    options = {"model_init_kwargs": {"dtype": "float32", "max_position_embeddings": 512}}
    with pytest.raises(ValueError, match="another max_position_embeddings than the policy has"):
        make_trainer(tiny_model, tmp_path, **COLOCATED, **options)


def test_a_folder_of_longer_context_is_served_as_it_is_trained(tmp_path):
    """The paper's configs and the script that makes the folder they name."""
    folder = shutil.copytree(MODEL_PATH, tmp_path / "model")
    config = yaml.safe_load((ROOT / "configs" / "paper" / "qwen2.5_math_7b" / "hpt.yaml").read_text())
    args = HPTConfig(str(tmp_path), **COLOCATED, model_init_kwargs=config["model_init_kwargs"])
    with pytest.raises(ValueError, match="max_position_embeddings and rope_parameters"):
        check_served_model(args, str(folder))
    subprocess.run([sys.executable, ROOT / "configs" / "paper" / "longer_context.py", folder], check=True)
    check_served_model(args, str(folder))
    written = json.loads((folder / "config.json").read_text())
    assert written["max_position_embeddings"] == 16384
    assert written["rope_parameters"]["rope_theta"] == 40000.0
    assert written["hidden_size"] == 128
