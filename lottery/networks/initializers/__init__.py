"""Initializers in PyTorch's own random numbers: those of the models here, and of the first runs.

All others, and the contract for them: `pruning.initializers`. These stay as they are, so that their numbers do.
"""
