"""Findings on a run, in words."""

from hpt_trl.report.diagnosis import Finding, Kind, diagnose

__all__ = ["Finding", "Kind", "diagnose"]
