"""Hostile planners, models, data, profiles and project folders: cases in families, each with what it tries, and the canaries that must stay untouched.

`python -m tests.corpus` counts the cases; `python -m tests.corpus run` tries them all.
"""
