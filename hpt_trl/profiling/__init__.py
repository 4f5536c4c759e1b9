"""Steps of a known composition through GRPOTrainer and HPTTrainer, and the ratios of their costs."""
