"""The vocabulary of a search, pure: objects, action types, events, the run's state and what is computed from it."""
