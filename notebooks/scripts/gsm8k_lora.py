# /// script
# requires-python = ">=3.11"
# dependencies = ["hpt-trl @ git+https://github.com/OWNER/hpt_trl"]
# ///
"""HPT with LoRA on GSM8K, on one GPU with 16 GB. Any option of `hpt-trl train` can follow.

    uv run gsm8k_lora.py
    uv run gsm8k_lora.py --model_name_or_path Qwen/Qwen2.5-1.5B-Instruct --max_steps 500
    hf jobs uv run --flavor a10g-small gsm8k_lora.py --push_to_hub true --hub_model_id you/gsm8k-hpt

Never run on a GPU; the tests run it with the bundled model on a CPU.
"""

import sys

from hpt_trl.train import main

OPTIONS = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct",
    "dataset_name": "openai/gsm8k",
    "dataset_config": "main",
    "output_dir": "runs/gsm8k_lora",
    "use_peft": "true",
    "lora_target_modules": "all-linear",
    "lora_dropout": "0",  # with dropout, the policy in training would differ from the one that sampled the rollouts
    "learning_rate": "5e-5",
    "per_device_train_batch_size": "8",
    "gradient_accumulation_steps": "8",  # 8 prompts x 8 rollouts per step
    "max_completion_length": "512",
    "max_steps": "200",
    "logging_steps": "1",
    "save_steps": "50",
    "report_to": "none",
}

if __name__ == "__main__":
    main([*(word for name, value in OPTIONS.items() for word in (f"--{name}", value)), *sys.argv[1:]])
