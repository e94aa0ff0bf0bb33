"""The parts of a training loop, which single and stacked trainings share."""
