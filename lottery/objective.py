"""Losses and metrics by their public address; the code lives in `lottery.networks.objectives`."""

from lottery.networks.objectives.metric import Metric
from lottery.networks.objectives.objective import accuracy, binary_accuracy, binary_loss, objective_for, squared_error

__all__ = ["Metric", "accuracy", "binary_accuracy", "binary_loss", "objective_for", "squared_error"]
