"""Reads the folder of a run."""

from hpt_trl.report.run_folder import Run, early, late, read_run

__all__ = ["Run", "early", "late", "read_run"]
