"""Markers in completions: thinking tags and the box of the answer."""

THINK, END_OF_THINK = "<think>", "</think>"
BOXED = "\\boxed{"
