"""A run's folder, read and explained: figures, findings in words, and one page."""
