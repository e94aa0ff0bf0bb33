"""The search for tickets: it prepares what the caller gave, then runs one level after the other."""
