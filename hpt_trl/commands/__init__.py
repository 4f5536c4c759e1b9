"""The commands of `hpt-trl`; `python -m hpt_trl.commands.cli` runs them without the entry point."""
