"""What the user has set up outside a profile: settings, and the drop-in folders with what is trusted of them."""
