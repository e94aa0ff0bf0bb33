"""Optimizers and learning rates: by name, or as people hold them."""
