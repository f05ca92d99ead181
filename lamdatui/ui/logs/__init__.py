"""The log pane: any line of a file of any size."""
