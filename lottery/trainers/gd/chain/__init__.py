"""Chains: fully connected networks, whose steps are compiled; a level's sparse layers train their survivors alone."""
