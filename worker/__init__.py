"""Boxlift's compute side: photos to attribution maps to boxes, and the RQ worker that runs it."""
