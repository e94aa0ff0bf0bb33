"""An environment instead of examples: learning from rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from es.tasks.environments import Environment, make_environment
from es.tasks.environments.given import given_environment
from lottery.state.identity import identify


@dataclass(frozen=True)
class Episodes:
    """An environment that networks act in; validation and test are episodes with keys of their own.

    Attributes:
        name: as people type it: `gymnax:CartPole-v1`.
        environment: its functions.
        identity: tells it from other environments, where its name does not.
    """

    name: str
    environment: Environment
    identity: str = ""
    default_model: str = "policy"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return self.environment.observation_shape

    def few(self, count: int) -> torch.Tensor:
        """Return a few observations."""
        return torch.zeros(count, *self.input_shape)

    @property
    def outputs(self) -> int:
        """How many outputs a policy needs: actions to choose from, or numbers that make up an action."""
        return self.environment.outputs

    def fingerprint(self) -> str:
        """Return what tells environments apart: their names, or what an object holds and does."""
        return self.identity or self.name


def load_episodes(name: str) -> Episodes:
    """Return the environment called `name`; raises `UsageError` for an unknown one or a suite that is missing."""
    return Episodes(name, make_environment(name))


def given_episodes(thing: Any) -> Episodes:
    """Return an environment object, alone or with its parameters; raises `DataError` for one that does not work."""
    environment = given_environment(thing)
    return Episodes(environment.name, environment, identify(thing))
