"""Tasks: named evaluations, their scorers, their splits and the statistics of their scores."""
