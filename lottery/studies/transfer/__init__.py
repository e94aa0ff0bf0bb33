"""Tickets trained again: by another trainer, on other data."""
