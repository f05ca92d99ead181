"""The screen about one model or trial, and the one that compares two."""
