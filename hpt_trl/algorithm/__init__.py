"""The paper's equations on tensors: gates, estimators, presets. No trainer, no config, no collective."""
