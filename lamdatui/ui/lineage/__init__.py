"""The tree of models and trials."""
