"""The screen on the planner: its memory, rules, hints, worth."""
