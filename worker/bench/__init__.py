"""Measurements of speed, apart from what they measure."""
