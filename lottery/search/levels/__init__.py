"""Levels: train, score, prune, rewind."""
