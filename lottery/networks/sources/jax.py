"""Networks of JAX people: pairs `(params, apply)` of any pytree, modules of Flax and of Equinox."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from es.jax_models.examples import described
from es.jax_models.functions import jax_network, jax_prunable, rebuild
from es.jax_models.kinds import is_jax_model, jax_kind, needs_example
from es.jax_models.modules import JaxModel, jax_model
from es.jax_models.uses import jax_uses
from es.network import Network
from es.translation.functions import to_jax
from lottery.networks.sources.initializing import Init
from lottery.networks.sources.source import Make, Redrawn, Start, chosen
from lottery.state.identity import identify, short_hash, without_addresses
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import digest
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.pytrees import leaf_names
from pruning.uses.uses import NOT_LOOKED_AT, Uses


@dataclass(frozen=True)
class JaxSource:
    """A maker of JAX models.

    Attributes:
        name: for tables and paths.
        make: returns a JAX model of any kind (`es.jax_models.kinds`) from a seed.
        varies: whether another seed gives other weights.
        example: returns a small batch of inputs, for models that have no weights before they have seen one.
        start: a ticket that every network begins at, or None.
        init: redraws its weights, or leaves them.
    """

    name: str
    make: Make
    varies: bool
    example: Callable[[], Any]
    start: Start | None = None
    init: Init = field(default_factory=Init)
    framework: str = "jax"
    layout: str = "as the pytree holds it"

    def model(self, seed: int) -> JaxModel:
        """Return the model of one seed; raises `BadValue` where `make` gives something else."""
        with seeded_everywhere(seed), users_code(f"model {self.name!r}", BadValue):
            made = self._made(seed)
            model = jax_model(made, seed, to_jax(self.example()) if needs_example(made) else None)
        if self.start is None and not self.init.changes:
            return model
        if self.start is None:
            network, params = jax_network(model.tree, model.apply, model.fixed)
            arrays, _ = self.init.redrawn(_evolved(network, params), seed, None)
            return replace(model, tree=rebuild(model.tree, {**params, **arrays}))
        tree = model.tree
        names = {name: np.shape(leaf) for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)}
        self.start.mask.fit(names)
        return replace(model, tree=rebuild(tree, self.start.params))

    def network(self, seed: int) -> tuple[Network, Params]:
        """Return the function of one seed's model, and its first arrays, by dotted name."""
        model = self.model(seed)
        return jax_network(model.tree, model.apply, model.fixed)

    def judged(self, seed: int, fitness: Callable[[Any, Any], Any]) -> tuple[Network, Params]:
        """Return the fitness of one seed's arrays and a key as a function, and the arrays."""
        model = self.model(seed)
        return jax_network(model.tree, lambda tree, key: fitness(model.shown(tree), key), model.fixed)

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays of one seed's model, by dotted name."""
        return dict(self.network(seed)[1])

    def initial_mask(self, seed: int) -> Mask | None:
        """Return the ticket's mask; a JAX model by itself carries none."""
        del seed
        return self.start.mask if self.start is not None else None

    def prunable(
        self, seed: int, only: Sequence[str], skip: Sequence[str], uses: Uses = NOT_LOOKED_AT
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the leaves that a mask covers, by name (see `es.jax_models.functions.jax_prunable`)."""
        model = self.model(seed)
        return jax_prunable(model.tree, only, skip, model.fixed, uses)

    def uses(self, seed: int, inputs: Any) -> Uses:
        """Return how one seed's function uses its matrices on a batch (see `es.jax_models.uses.jax_uses`)."""
        return self._uses(*self.network(seed), to_jax(inputs))

    def judged_uses(self, seed: int, fitness: Callable[[Any, Any], Any]) -> Uses:
        """Return how a fitness function uses one seed's matrices, as far as that depends on its key.

        To be added or compared may be all that such a function does with parameters: none stays dense for that.
        """
        return replace(self._uses(*self.judged(seed, fitness), jax.random.key(0)), apart={})

    def _uses(self, network: Network, params: Params, inputs: Any) -> Uses:
        matrices = [name for name in network.evolved if params[name].ndim > 1]
        return jax_uses(network, params, matrices, inputs)

    def facts(self, seed: int) -> Mapping[str, Any]:
        """Return what a ticket's record says of how its model is made again: its kind, and what it is first shown."""
        made = self._made(seed)
        shown = {"example": described(to_jax(self.example()))} if needs_example(made) else {}
        return {"model_kind": jax_kind(made), **shown}

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's model: its code, the tree's structure, all values, and the mask."""
        again = replace(self, init=self.init.afresh())
        model = again.model(seed)
        leaves, structure = jax.tree.flatten(model.tree)
        state, names = again.initial_state(seed), leaf_names(model.tree)
        # functions, sizes, random keys
        others = [identify(leaf) for name, leaf in zip(names, leaves, strict=True) if name not in state]
        mask = digest(dict(self.start.mask)) if self.start is not None else ""
        code = [without_addresses(part) if isinstance(part, str) else identify(part) for part in model.code]
        parts = [*code, without_addresses(str(structure)), *others, digest(state), mask]
        return short_hash(parts, length=64)

    def starting_at(self, start: Start) -> JaxSource:
        """Return a source whose networks all begin at a ticket; seeds differ in everything else."""
        return replace(self, start=start, varies=True)

    def drawn(self, seed: int, mask: Mask, init: Init) -> Redrawn:
        """Return one seed's arrays as its maker leaves them, with its weights drawn under a mask."""
        network, params = replace(self, init=Init(), start=None).network(seed)
        arrays, found = init.redrawn(_evolved(network, params), seed, mask)
        return Redrawn({**params, **arrays}, chosen(mask, found.keep), found.left)

    def with_init(self, init: Init) -> JaxSource:
        """Return a source of the same networks with their weights drawn so; seeds differ."""
        return replace(self, init=init, varies=True)

    def _made(self, seed: int) -> Any:
        with seeded_everywhere(seed), users_code(f"model {self.name!r}", BadValue):
            made = self.make(seed)
            if not is_jax_model(made):
                raise BadValue(f"model {self.name!r} returned {type(made).__name__}, not a JAX model")
            return made


def _evolved(network: Network, params: Params) -> dict[str, np.ndarray[Any, Any]]:
    return {name: params[name] for name in network.evolved}
