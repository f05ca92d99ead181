"""What a profile names, opened and checked: the profile, models, datasets, tasks."""
