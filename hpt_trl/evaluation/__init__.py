"""Evaluates a model on benchmark problems: sampling, judging, scores."""
