"""Studies of a finished run: controls, instability, connectivity, transfer, analyses."""
