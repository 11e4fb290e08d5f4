"""Replays traffic that was: reads access logs into an anonymous plan, and drives the plan at any scale."""
