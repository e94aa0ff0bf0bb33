"""The settings that all trainings of one search share."""

from __future__ import annotations

from dataclasses import dataclass

from es.device import Device
from lottery.trainers.factors import Factors
from lottery.trainers.optax.config import OptaxConfig
from lottery.trainers.optax.networks.problem import Problem
from lottery.trainers.optax.optimizers.optimizer import Optimizer
from lottery.trainers.optax.optimizers.rates import Rates
from pruning.watch import Watch


@dataclass(frozen=True, eq=False)
class Frame:
    """Settings, data and progress report of the trainings; the same for every job.

    Attributes:
        problem: the network, the data on the device, loss and metric.
        config: how to train.
        optimizer: takes the steps.
        rates: their learning rates.
        total_steps: steps of a whole training.
        device: where to train.
        watch: receives progress, and keeps checkpoints.
        factors: by what the learning rates of single tensors are multiplied.
    """

    problem: Problem
    config: OptaxConfig
    optimizer: Optimizer
    rates: Rates
    total_steps: int
    device: Device
    watch: Watch
    factors: Factors
