"""An environment in the place of examples: learning from rewards."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from es.tasks.environments import Environment, make_environment


@dataclass(frozen=True)
class Episodes:
    """An environment that networks act in; validation and test are episodes with keys of their own.

    Attributes:
        name: as people type it: `gymnax:CartPole-v1`.
        environment: its functions.
    """

    name: str
    environment: Environment
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
        """Return what tells environments apart: their names."""
        return self.name


def load_episodes(name: str) -> Episodes:
    """Return the environment called `name`; raises `UsageError` for an unknown one or a suite that is missing."""
    return Episodes(name, make_environment(name))
