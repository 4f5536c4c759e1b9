"""What a run writes and shows while it trains: its log, samples, and the panel in the terminal."""
