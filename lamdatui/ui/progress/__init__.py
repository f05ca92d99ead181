"""The screen on how the search goes."""
