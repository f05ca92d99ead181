"""The approval card: what it says, its keys, edits, and the decision."""
