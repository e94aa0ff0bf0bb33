"""What is asked of a finished run: controls, stability, connectivity, transfer, analyses."""
