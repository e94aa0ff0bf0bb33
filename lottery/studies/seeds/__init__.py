"""How much of a result is chance: trainings over a grid of two seeds."""
