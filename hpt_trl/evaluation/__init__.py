"""avg@k and pass@k of a model: engines, sampling, scores, and the journal that a killed run resumes from."""
