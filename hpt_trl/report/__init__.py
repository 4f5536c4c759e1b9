"""Reads the folder of a run, diagnoses it, and renders an HTML report with charts."""
