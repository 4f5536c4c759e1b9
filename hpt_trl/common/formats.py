"""Markers of the form of an answer."""

THINK, END_OF_THINK = "<think>", "</think>"
BOXED = "\\boxed{"
