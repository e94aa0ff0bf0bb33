"""Masks in files, under the names of a model, and on its tensors."""
