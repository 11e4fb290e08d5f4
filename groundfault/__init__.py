"""Overload protection for Python services: shed load on purpose, say so, and trip nobody's circuit breaker."""
