"""The main screen: status, panes, and what opens over it."""
