"""Starts: what is needed to begin a sparse network right, whatever its framework. Schemes are in `initializers`."""
