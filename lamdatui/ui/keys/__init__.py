"""The table of keys, and the person's own key map."""
