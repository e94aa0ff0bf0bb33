"""How much of a population, and of a batch, is evaluated at once: chosen from what a step holds in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from es.population.interpreter import bind

REBUILT = ("broadcast_in_dim", "iota")
"""Cheap to make again where they are needed, and fused there; held in memory they would have to be read."""


@dataclass(frozen=True)
class Held:
    """Bytes that are live at the worst moment of a program.

    Attributes:
        activations: of values that depend on the inputs and on the population.
        weights: of values that depend on the population only.
    """

    activations: float
    weights: float


def held(jaxpr: core.Jaxpr, population: int, inputs: Sequence[int]) -> Held:
    """Return what a program holds; the arguments tell which of its inputs are the population and the batch."""
    of_member, of_input = {jaxpr.invars[population]}, {jaxpr.invars[i] for i in inputs}
    last = {atom: i for i, equation in enumerate(jaxpr.eqns) for atom in equation.invars if isinstance(atom, core.Var)}
    last.update({atom: len(jaxpr.eqns) for atom in jaxpr.outvars if isinstance(atom, core.Var)})
    live: dict[core.Var, float] = {}
    worst = Held(0, 0)
    for i, equation in enumerate(jaxpr.eqns):
        operands = [atom for atom in equation.invars if isinstance(atom, core.Var)]
        for group in (of_member, of_input):
            if any(atom in group for atom in operands):
                group.update(equation.outvars)
        if any(atom in of_member for atom in equation.outvars) and equation.primitive.name not in REBUILT:
            live.update({atom: atom.aval.size * atom.aval.dtype.itemsize for atom in equation.outvars})  # pyright: ignore[reportAttributeAccessIssue]
        both = sum(size for atom, size in live.items() if atom in of_input)
        worst = Held(max(worst.activations, both), max(worst.weights, sum(live.values()) - both))
        for atom in operands:
            if last[atom] <= i:
                live.pop(atom, None)
    return worst


def divisor(total: int, most: float, least: float = 1) -> int | None:
    """Return the largest divisor of `total` from `least` to `most`, if there is one.

    >>> divisor(100, 30), divisor(7, 5, 2)
    (25, None)
    """
    return next((d for d in range(min(total, int(most)), 0, -1) if total % d == 0 and d >= least), None)


def at_once(members: int, room: float) -> int:
    """Return how many members to evaluate at once, at most `room` of them, so that the last chunk is nearly full.

    >>> at_once(128, 37.5), at_once(127, 40), at_once(3, 0.1)
    (32, 32, 1)
    """
    most = max(1, min(members, int(room)))
    return divisor(members, most, most / 2) or -(-members // -(-members // most))


def over_members(
    closed: core.ClosedJaxpr, population: jax.Array, arguments: Sequence[Any], size: int
) -> list[jax.Array]:
    """Return the outputs of a program, `size` members at a time; what does not depend on the member is computed once.

    A chunk takes every n-th member, not neighbours: when members are spread over devices, each device has a part in
    every chunk.

    Args:
        closed: of population [size, D] and the arguments; every output has a leading population axis.
        population: [P, D].
        arguments: shared by all members.
        size: members of a chunk.

    >>> scaled = jax.make_jaxpr(lambda population, x: population * x)(jnp.ones((2, 1)), jnp.ones(1))
    >>> over_members(scaled, jnp.arange(5.0)[:, None], [jnp.full(1, 10.0)], size=2)[0].ravel().tolist()
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    run = _split(closed, arguments)
    members = population.shape[0]
    if size == members:
        return run(population)
    count = -(-members // size)
    spare = count * size - members
    if spare:
        population = jnp.concatenate([population, jnp.broadcast_to(population[-1:], (spare, population.shape[1]))])
    chunks = population.reshape(size, count, -1)
    outputs = lax.map(lambda i: run(lax.dynamic_index_in_dim(chunks, i, 1, keepdims=False)), jnp.arange(count))
    return [jnp.swapaxes(out, 0, 1).reshape(count * size, *out.shape[2:])[:members] for out in outputs]


def _split(closed: core.ClosedJaxpr, arguments: Sequence[Any]) -> Callable[[jax.Array], list[Any]]:
    """Compute what does not depend on the first input; return a function of that input for the rest."""
    jaxpr = closed.jaxpr
    shared: dict[core.Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    shared.update(zip(jaxpr.invars[1:], arguments, strict=True))
    again: list[core.JaxprEqn] = []
    rest: list[core.JaxprEqn] = []
    for equation in jaxpr.eqns:
        if all(isinstance(atom, core.Literal) or atom in shared for atom in equation.invars):
            shared.update(zip(equation.outvars, _run(equation, shared), strict=True))
            again += [equation] if equation.primitive.name in REBUILT else []
        else:
            rest.append(equation)

    def run(population: jax.Array) -> list[Any]:
        values = {**shared, jaxpr.invars[0]: population}
        needed = {atom for equation in rest for atom in equation.invars if isinstance(atom, core.Var)}
        for equation in [e for e in again if e.outvars[0] in needed] + rest:
            values.update(zip(equation.outvars, _run(equation, values), strict=True))
        return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in jaxpr.outvars]

    return run


def _run(equation: core.JaxprEqn, values: dict[core.Var, Any]) -> list[Any]:
    return bind(equation, [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in equation.invars])
