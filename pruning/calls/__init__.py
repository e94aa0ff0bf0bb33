"""Calls of somebody's module: arguments, outputs, and what it raises."""
