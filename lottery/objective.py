"""Losses and metrics by their public address; they live in `lottery.networks.objectives`."""

from lottery.networks.objectives.metric import Metric as Metric
from lottery.networks.objectives.objective import accuracy as accuracy
from lottery.networks.objectives.objective import binary_loss as binary_loss
from lottery.networks.objectives.objective import objective_for as objective_for
from lottery.networks.objectives.objective import squared_error as squared_error
