"""Scopes: where the survivors of a level lie. One small file each, found by itself.

A schedule says how many weights every level keeps; a scope says in which tensors: it gives one total, for which all
scores compete, or one count for each tensor, within which they compete.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pruning.errors import BadValue
from pruning.ladder import Target, explicit, geometric, until_sparsity
from pruning.registry import Registry, summary_of
from pruning.uses.uses import in_order


@dataclass(frozen=True)
class Schedule:
    """How far the levels prune, before a scope says where.

    Attributes:
        prune_rate: fraction of the survivors that a level removes.
        levels: how many times to prune.
        sparsity: prune until this sparsity instead.
        densities: an explicit falling list of densities instead.
        guard: the fewest weights that every tensor keeps.
        layer_rates: prune rates by tensor-name pattern, for a scope that reads them.
        layer_densities: densities at the last level by tensor-name pattern, for a scope that reads them.
    """

    prune_rate: float = 0.2
    levels: int = 12
    sparsity: float | None = None
    densities: tuple[float, ...] = ()
    guard: int = 1
    layer_rates: Mapping[str, float] = field(default_factory=dict)
    layer_densities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PrunableTensors:
    """The prunable tensors of a network, in the model's order.

    Attributes:
        shapes: shape by name.
        sizes: weights that level 0 keeps, by name: all, unless the network was already pruned.
        order: the tensors in the order in which a forward pass uses them; by default as they are listed.
        outputs: those whose layer makes the network's outputs (there may be none, or several); by default the last
            in order.
    """

    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    order: tuple[str, ...] = ()
    outputs: frozenset[str] | None = None

    @property
    def totals(self) -> dict[str, int]:
        """All weights of each tensor: what densities are fractions of."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @property
    def by_depth(self) -> list[str]:
        """Names in the order of their use."""
        return in_order(self.shapes, self.order)

    @property
    def making_outputs(self) -> frozenset[str]:
        """Names of the tensors whose layer makes the network's outputs."""
        return frozenset(self.by_depth[-1:]) if self.outputs is None else self.outputs & set(self.shapes)


ScopeFunction = Callable[[Schedule, PrunableTensors], list[Target]]


@dataclass(frozen=True)
class Scope:
    """Where survivors lie.

    Attributes:
        name: the name that users type.
        targets: `targets(schedule, tensors)` returns what every level keeps, level 0 first.
        reads: tables of the schedule that mean something to it: `layer_rates`, `layer_densities`.
        follows: whether it asks in which order tensors are used, and which make the outputs.
    """

    name: str
    targets: ScopeFunction
    reads: frozenset[str]
    follows: bool = False


SCOPES: Registry[Scope] = Registry("scope", "pruning.scopes", listed="scopes")


def scope(
    name: str, *, source: str, reads: Iterable[str] = (), follows: bool = False
) -> Callable[[ScopeFunction], ScopeFunction]:
    """Register a function that places survivors; its docstring's first line is its summary.

    Args:
        name: the name that users type.
        source: the paper (or page) that defines it.
        reads: tables of the schedule that it reads; given with another scope, they are an error.
        follows: whether it asks in which order tensors are used, and which make the outputs.
    """

    def register(targets: ScopeFunction) -> ScopeFunction:
        SCOPES.add(name, Scope(name, targets, frozenset(reads), follows), summary_of(targets), source)
        return targets

    return register


def place(name: str, schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """Return how many weights every level keeps under the scope called `name`, level 0 first.

    Args:
        name: a registered scope.
        schedule: how far the levels prune.
        tensors: of the network.

    Raises:
        UnknownName: no such scope, or a name pattern that matches no tensor.
        BadValue: a level that cannot be met, or a table that the scope does not read.

    >>> place("uniform", Schedule(levels=1), PrunableTensors({"a": (4, 5), "b": (10,)}, {"a": 20, "b": 10}))
    [{'a': 20, 'b': 10}, {'a': 16, 'b': 8}]
    """
    chosen = SCOPES[name].value
    for table in ("layer_rates", "layer_densities"):
        if getattr(schedule, table) and table not in chosen.reads:
            readers = " or ".join(repr(entry.name) for entry in SCOPES if table in entry.value.reads)
            raise BadValue(f"{table} need scope {readers}; scope {name!r} does not read them")
    return chosen.targets(schedule, tensors)


def follow(schedule: Schedule, tensors: PrunableTensors, rates: Mapping[str, float], counted: str) -> list[Target]:
    """Return the ladder that the schedule asks for at these prune rates.

    Args:
        schedule: how far.
        tensors: of the network.
        rates: prune rate of each tensor.
        counted: `global` for one total for each level, `layer` for one count for each tensor.

    Raises:
        BadValue: a level that empties a tensor, or that nothing reaches.
    """
    sizes, totals = tensors.sizes, tensors.totals
    if schedule.densities:
        return explicit(sizes, schedule.densities, counted, totals, schedule.guard)
    if schedule.sparsity is not None:
        return until_sparsity(sizes, rates, schedule.sparsity, counted, sum(totals.values()), schedule.guard)
    return geometric(sizes, rates, schedule.levels, counted, schedule.guard)


def level_totals(schedule: Schedule, tensors: PrunableTensors) -> list[int]:
    """Return how many weights every level keeps in all: one prune rate for the whole network.

    >>> level_totals(Schedule(levels=2), PrunableTensors({"a": (10, 10)}, {"a": 100}))
    [100, 80, 64]
    """
    ladder = follow(schedule, tensors, dict.fromkeys(tensors.sizes, schedule.prune_rate), "global")
    return [target for target in ladder if isinstance(target, int)]
