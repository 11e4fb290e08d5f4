"""The pieces of soak/chaos.py."""
