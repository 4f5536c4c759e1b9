"""What survives a kill: checkpoints, faults, the gate's history, uploads."""
