"""Differences from the defaults, by name."""
