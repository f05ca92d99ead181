"""What runs inside a step: the warm host, loading, training through TRL and PEFT, evaluation. Imports torch."""
