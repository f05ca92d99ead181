"""Between processes: the protocol, its client, snapshots, the run directory and its engine's start."""
