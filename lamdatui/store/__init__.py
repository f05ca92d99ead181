"""What lasts: the journal of a run (apsw) and the content-addressed store of its models."""
