"""Networks of plain JAX: pairs `(params, apply)`, from which any pytree of weights can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from es.jax_functions import jax_network, jax_prunable, rebuild
from es.jax_uses import jax_uses
from es.torch_functions import to_jax
from lottery.identity import identify, short_hash, without_addresses
from lottery.models.source import Make, Start, is_jax_pair
from lottery.randomness import seeded_everywhere
from lottery.torch_state import digest
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.pytrees import leaf_names
from pruning.users_code import users_code
from pruning.uses import Uses


@dataclass(frozen=True)
class JaxSource:
    """A maker of JAX pairs.

    Attributes:
        name: for tables and paths.
        make: returns `(params, apply)` from a seed.
        varies: whether another seed gives other weights.
        start: a ticket that every network begins at, or None.
    """

    name: str
    make: Make
    varies: bool
    start: Start | None = None
    framework: str = "jax"
    layout: str = "as the pytree holds it"

    def pair(self, seed: int) -> tuple[Any, Any]:
        """Return the pair of one seed; raises `BadValue` where `make` gives something else."""
        with seeded_everywhere(seed), users_code(f"model {self.name!r}", BadValue):
            made = self.make(seed)
        if not is_jax_pair(made):
            raise BadValue(f"model {self.name!r} returned {type(made).__name__}, not a pair (params, apply)")
        if self.start is None:
            return made
        tree, apply = made
        names = {name: np.shape(leaf) for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)}
        self.start.mask.fit(names)
        return rebuild(tree, self.start.params), apply

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of one seed's pytree, by dotted name."""
        return dict(jax_network(*self.pair(seed))[1])

    def initial_mask(self, seed: int) -> Mask | None:
        """Return the ticket's mask; a JAX pair by itself carries none."""
        del seed
        return self.start.mask if self.start is not None else None

    def prunable(self, seed: int, only: Sequence[str], skip: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the leaves that a mask covers, by name (see `es.jax_functions.jax_prunable`)."""
        return jax_prunable(self.pair(seed)[0], only, skip)

    def uses(self, seed: int, inputs: Any) -> Uses:
        """Return how one seed's function uses its matrices on a batch (see `es.jax_uses.jax_uses`)."""
        network, params = jax_network(*self.pair(seed))
        matrices = [name for name in network.evolved if params[name].ndim > 1]
        return jax_uses(network, params, matrices, to_jax(inputs))

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's pair: the function's code, the tree's structure, all values, and the mask."""
        tree, apply = self.pair(seed)
        leaves, structure = jax.tree.flatten(tree)
        state = self.initial_state(seed)
        # functions, sizes, random keys
        others = [identify(leaf) for name, leaf in zip(leaf_names(tree), leaves, strict=True) if name not in state]
        mask = digest(dict(self.start.mask)) if self.start is not None else ""
        parts = [identify(apply), without_addresses(str(structure)), *others, digest(state), mask]
        return short_hash(parts, length=64)

    def starting_at(self, start: Start) -> JaxSource:
        """Return a source whose networks all begin at a ticket; seeds differ in everything else."""
        return replace(self, start=start, varies=True)
