"""Linear mode connectivity between trained tickets."""
