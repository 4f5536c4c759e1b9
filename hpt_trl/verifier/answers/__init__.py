"""Answers: extracting, normalizing and parsing them, and testing two for equality."""
