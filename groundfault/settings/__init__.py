"""Live settings: read from a central store, checked as a whole, in force within seconds; no call ever waits for it."""
