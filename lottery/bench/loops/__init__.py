"""Loops that benchmarks time: ours in JAX, and the same by hand."""
