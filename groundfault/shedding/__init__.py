"""The server half: refuse, before it runs, what has waited too long or can no longer be answered in time."""
