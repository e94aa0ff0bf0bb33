"""Products of sparse matrices in C, compiled on the machine that runs them; nothing here is required."""
