"""What everything stands on: errors, paths, JSON, YAML, text for terminals, file fingerprints, time. Knows nothing of runs."""
