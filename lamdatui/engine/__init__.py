"""The engine: a detached process, the only writer of its run's journal."""
