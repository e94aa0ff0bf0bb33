"""Honest timings: each benchmark is one file that returns rows."""
