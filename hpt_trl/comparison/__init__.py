"""The paper's comparison on miniature models: methods, runs, evaluation and report. Run by `hpt-trl compare`."""
