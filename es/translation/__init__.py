"""torch code as JAX functions."""
