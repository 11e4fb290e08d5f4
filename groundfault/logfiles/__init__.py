"""Reads logs of any size, in memory that is bounded: what ``groundfault advise`` and ``groundfault replay`` share."""
