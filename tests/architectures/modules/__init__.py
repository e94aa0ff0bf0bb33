"""Small networks made by hand: one of each kind that is known to break pruning tools."""
