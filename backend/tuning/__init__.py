"""Learning from a project's corrections: what people drew → photos with true boxes → a tuning of the project's own.

corrections ──photos──► maps (cached) ──worker.learning──► parameters ──publish──► Redis ──► backend, workers
"""
