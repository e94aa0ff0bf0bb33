"""The search for tickets: what it is given, made ready, and its levels one after the other."""
