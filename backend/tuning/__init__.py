"""Learning from a project's corrections: what people drew → photos with true boxes → a tuning of the project's own.

corrections ──photos──► maps (cached) ──worker.learning──► parameters ──publish──► Redis ──► backend, workers
"""

BUSY, ELSEWHERE = 75, 76
"""Exit status of `boxlift tune` where somebody tunes the project already, and where this machine cannot have the
workers' network."""
