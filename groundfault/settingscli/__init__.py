"""The command line for live settings: look, change with a reason, go back."""
