"""Benchmarks of scripted training steps: HPTTrainer against GRPOTrainer."""
