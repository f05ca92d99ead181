"""Actions that a person queues, and the list of those that wait."""
