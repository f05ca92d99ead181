"""The commands of `lamdatui` and what they do."""
