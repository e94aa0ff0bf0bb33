"""What lies on disk: run directories, checkpoints, tickets."""
