"""Answers: where a completion gives one, how it is spelled, what it is made of, and whether two are equal."""
