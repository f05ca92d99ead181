"""The pane on GPUs and the machine."""
