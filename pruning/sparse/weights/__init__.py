"""Sparse matrices and kernels as modules: the surviving values are the parameters."""
