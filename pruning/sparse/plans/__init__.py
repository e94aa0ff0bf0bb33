"""Plans: everything that follows from a mask alone."""
