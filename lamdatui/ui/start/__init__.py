"""The start screen, and how a run is begun from it."""
