"""Flows: what becomes of the results of a network's products, from one forward pass."""
