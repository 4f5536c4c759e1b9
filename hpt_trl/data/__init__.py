"""Conversion of known datasets to `prompt`, `demonstration`, `solution`, with a report of every refused row."""

from hpt_trl.data.columns import converter
from hpt_trl.data.preparation import Preparation, columns_of, prepare_rows
from hpt_trl.data.prompts import INSTRUCTION, PromptStyle, question_prompt
from hpt_trl.data.readers import load_rows, read_rows
from hpt_trl.data.refusal_report import Report

__all__ = [
    "INSTRUCTION",
    "Preparation",
    "PromptStyle",
    "Report",
    "columns_of",
    "converter",
    "load_rows",
    "prepare_rows",
    "question_prompt",
    "read_rows",
]
