"""Advice on thresholds: what timeouts, volumes and limits fit how a service really behaves."""
