"""Optimizers whose names are known without a look into optax: the commonest, and the caller's own objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COMMON = ("sgd", "adam", "adamw")
"""Optimizers that mean here what they mean to trainer `gd`."""


@dataclass(frozen=True, eq=False)
class NamedOptimizer:
    """A gradient transformation of optax under the name that the records of a run have for it.

    Attributes:
        name: the caller's name for it.
        transformation: an object with `init` and `update`.
    """

    name: str
    transformation: Any

    @property
    def __name__(self) -> str:
        """What it is called in records."""
        return self.name

    def __call__(self) -> Any:
        """Return the transformation."""
        return self.transformation
