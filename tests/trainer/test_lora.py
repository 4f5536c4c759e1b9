"""Adapters: trained by the configs of configs/lora, sharded as without them, and saved for plain peft to load."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.quantizers import quantizer_bnb_4bit
from trl import ModelConfig

from hpt_trl import HPTConfig
from hpt_trl.commands.train import HPTScriptArguments, build_trainer, main, run
from hpt_trl.common.command_line import parse
from hpt_trl.miniature import MODEL_PATH
from tests.launch import ROOT, accelerate, cpu_form, run_all
from tests.tiny import relative_error
from tests.trainer.lora_worker import IDS, run_kl
from tests.trainer.sharded_worker import trained_weights
from tests.trainer.test_sharded import check_in_use

# What makes a config of one 24 GB GPU two steps on a CPU.
ON_A_CPU = {
    "model_name_or_path": "miniature", "dataset_name": "miniature", "use_cpu": True, "use_vllm": False, "max_steps": 2,
    "gradient_accumulation_steps": 2, "steps_per_generation": 2, "max_completion_length": 16, "save_strategy": "no",
    "gate_threshold": 1.0, "disable_tqdm": True, "dtype": "float32", "bf16": False,
}  # fmt: skip


def flags(config: str, folder: Path) -> list[str]:
    options = ON_A_CPU | {"config": ROOT / "configs" / "lora" / f"{config}.yaml", "output_dir": folder}
    return [part for key, value in options.items() for part in (f"--{key}", str(value))]


def logps(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float().log_softmax(-1)


@pytest.mark.parametrize("config", ["qwen2.5_math_1.5b_lora", "qwen2.5_math_7b_qlora"])
def test_a_config_trains_adapters_that_plain_peft_loads(tmp_path, config):
    is_quantized = config.endswith("qlora")
    if is_quantized:
        bitsandbytes = pytest.importorskip("bitsandbytes")
    script, args, model = parse((HPTScriptArguments, HPTConfig, ModelConfig), flags(config, tmp_path), "test")
    trainer = build_trainer(script, args, model)
    layer = trainer.model.get_base_model().model.layers[0].mlp.up_proj
    assert isinstance(layer.base_layer, bitsandbytes.nn.Linear4bit if is_quantized else torch.nn.Linear)
    before = trained_weights(trainer)
    assert all("lora_" in name for name in before)
    run(trainer)
    assert trainer.state.log_history[0]["hpt/demonstration_share"] == 1
    after = trained_weights(trainer)
    assert all(not torch.equal(after[name], before[name]) for name in before if "lora_B" in name)
    assert any(not torch.equal(after[name], before[name]) for name in before if "lora_A" in name)

    options = {"quantization_config": trainer.model.config.quantization_config} if is_quantized else {}
    base = AutoModelForCausalLM.from_pretrained(MODEL_PATH, dtype=torch.float32, **options)
    # Not used before: bitsandbytes packs weights upon the first forward on a CPU, and peft would wrap them wrongly.
    adapted = PeftModel.from_pretrained(base, tmp_path)
    # TRL trains adapters of quantized models in bfloat16, and peft loads them in float32: the same numbers, but
    # bitsandbytes' kernel rounds by the precision around it.
    trained = dict(trainer.model.named_parameters())
    for name, weight in adapted.named_parameters():
        weight.data = weight.data.to(trained[name].dtype)
    loaded = logps(adapted)
    torch.testing.assert_close(loaded, logps(trainer.model))
    with adapted.disable_adapter():
        assert not torch.equal(loaded, logps(adapted))


def test_four_bits_without_bitsandbytes_are_told_in_one_paragraph(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantizer_bnb_4bit, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        main(flags("qwen2.5_math_7b_qlora", tmp_path))
    assert stop.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("hpt-trl train: error: ")
    assert "requires bitsandbytes: `pip install" in told


@pytest.fixture(scope="module", params=["zero2", "zero3", "fsdp2"])
def launched(request, tiny_model, tmp_path_factory):
    """Config, folder and results of one launch on two processes."""
    folder = tmp_path_factory.mktemp(f"lora_{request.param}")
    arguments = ["-m", "tests.trainer.lora_worker", request.param, tiny_model, str(folder)]
    run_all([accelerate(cpu_form(request.param, folder), *arguments)], folder, seconds=300)
    return request.param, folder, torch.load(folder / "results.pt")


@pytest.mark.distributed
def test_two_processes_move_the_adapters_as_one_does(launched, tiny_model, tmp_path):
    config, _, results = launched
    check_in_use(config, results["kl"])
    expected = run_kl("one process", tiny_model, tmp_path, 1)
    assert relative_error(results["kl"]["moved"], expected["moved"]) < 1e-5
    assert results["kl"]["losses"] == pytest.approx(expected["losses"], rel=1e-5, abs=1e-6)
    # TRL logs the mean of micro-batches' means, which depends on how rows are dealt to them.
    assert results["kl"]["kl"] == pytest.approx(expected["kl"], rel=0.02)


@pytest.mark.distributed
def test_kl_is_against_the_base_without_adapters(launched, tiny_model):
    results = launched[2]["kl"]
    batch = results["batch"]
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        every = base(ids, attention_mask=mask, position_ids=positions).logits[:, :-1].log_softmax(-1)
    width = batch["completion_ids"].size(1)
    expected = every.gather(2, ids[:, 1:, None])[:, -width:, 0]
    keep = batch["completion_mask"].bool()
    torch.testing.assert_close(batch["ref_per_token_logps"][keep], expected[keep], rtol=1e-4, atol=1e-5)
    # The first step starts at the base, the second has left it.
    assert results["kl"][0] == pytest.approx(0, abs=1e-6) != results["kl"][1]


@pytest.mark.distributed
def test_adapters_load_with_plain_peft_and_merge(launched, tiny_model, tmp_path):
    _, folder, results = launched
    saved = folder / "resume" / "saved"
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain = logps(base)
    model = PeftModel.from_pretrained(base, saved)
    torch.testing.assert_close(logps(model), results["resume"]["logps"])
    assert (logps(model) - plain).abs().max() > 1e-3
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logps(merged), results["resume"]["logps"], rtol=1e-4, atol=1e-4)


@pytest.mark.distributed
def test_adapters_resume_to_the_bit(launched):
    results = launched[2]["resume"]
    for name, weight in results["weights"].items():
        assert torch.equal(results["resumed"][name], weight), name
