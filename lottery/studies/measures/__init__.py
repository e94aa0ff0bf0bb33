"""Measures of networks, on plain arrays."""
