"""The paper's comparison in miniature: what is run, how it is counted, and the report. `hpt-trl compare` runs it."""
