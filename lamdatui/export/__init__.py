"""A model of a run as something to hand on: its weights, how they came to be, what they scored, and how to check that."""
