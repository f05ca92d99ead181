"""What the console knows of a run: the view state, its reducer, the link to the engine, and numbers and words for it. No textual."""
