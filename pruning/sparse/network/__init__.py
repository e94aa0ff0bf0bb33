"""A whole network that runs sparse: which layers, how it is trained, run and reported."""
