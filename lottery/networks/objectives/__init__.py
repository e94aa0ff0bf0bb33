"""Losses and metrics: what a network is trained for and judged by."""
