"""Copies of a network that share nothing with it."""
