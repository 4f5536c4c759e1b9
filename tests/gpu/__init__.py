"""`make gpu-check`: proves the trainer on one CUDA GPU in under nine minutes, without a network."""
