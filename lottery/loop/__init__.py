"""Training by a loop of the caller's own."""
