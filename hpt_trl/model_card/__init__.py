"""Collects the facts of a run and writes its model card."""
