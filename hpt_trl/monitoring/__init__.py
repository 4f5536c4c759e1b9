"""What a run records and shows while it trains: its log, samples, and the panel in the terminal."""
