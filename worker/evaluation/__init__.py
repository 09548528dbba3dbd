"""How good are the boxes? Data sets with true boxes, metrics, other methods beside ours, and a report.

datasets ──► Sample (photo, true objects) ──run──► Outcome (boxes, scores) ──metrics──► figures ──► report
"""
