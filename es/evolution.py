"""The compiled part of evolution: the state of one network's evolution, and one generation after the other.

    ask ─▶ population [P, D] ─▶ task ─▶ losses [P] ─▶ tell ─▶ decay of the mean

Nothing here leaves the device, and nothing depends on how many generations are run at a time: everything random in a
generation follows from the job's seed and the generation's number alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from es.device import Device
from es.network import Arrays
from es.strategies import Strategy
from es.tasks import Task


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evolution:
    """One network's evolution between two generations; a pytree of device arrays.

    Attributes:
        strategy: the strategy's own state.
        fixed: every parameter and buffer that is not evolved, by name.
        key: of the job; never changes.
        generation: how many generations are done, those before the rewind point included.
        loss_sum: mean losses of the generations since the last evaluation, summed.
        loss_count: how many those are.
        failed: the generation in which no member had a finite loss, or -1.
    """

    strategy: Any
    fixed: Arrays
    key: jax.Array
    generation: jax.Array
    loss_sum: jax.Array
    loss_count: jax.Array
    failed: jax.Array


@dataclass(frozen=True)
class Rules:
    """What happens in every generation.

    Attributes:
        strategy: draws populations and learns from their losses.
        task: judges them.
        mean_decay: fraction of the mean that is taken away after a generation.
        devices: each evaluates as many members as the others; all do everything else alike.
    """

    strategy: Strategy
    task: Task
    mean_decay: float
    devices: tuple[Device, ...]


MEMBERS = "members"
"""Name of the axis of devices over which members are spread."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sample:
    """Two members of the last generation, the first and the last, as the compiled program judged them.

    Attributes:
        members: [2, D] float32.
        losses: [2] float32.
        key: of what all members saw (see `Task.losses`).
    """

    members: jax.Array
    losses: jax.Array
    key: jax.Array


Advance = Callable[[Evolution, Any, int], tuple[Evolution, Sample]]


def begin(strategy: Strategy, mean: jax.Array, fixed: Arrays, seed: int, start: int) -> Evolution:
    """Return a fresh evolution around a mean [D]."""
    key = jax.random.PRNGKey(seed)
    return Evolution(
        strategy=strategy.init(jax.random.fold_in(key, start), mean),
        fixed=dict(fixed),
        key=key,
        generation=jnp.asarray(start, jnp.int32),
        loss_sum=jnp.zeros((), jnp.float32),
        loss_count=jnp.zeros((), jnp.int32),
        failed=jnp.asarray(-1, jnp.int32),
    )


def generation(rules: Rules, data: Any, where: NDArray[Any] | jax.Array, state: Evolution) -> tuple[Evolution, Sample]:
    """Return the evolution one generation later, and two of its members.

    To the strategy, a member whose loss is not finite is worse than all others. Where no loss is finite, nothing is
    learned any more, and `failed` says since when.
    """
    strategy, task = rules.strategy, rules.task
    key = jax.random.fold_in(state.key, state.generation)
    ask_key, task_key, tell_key = jax.random.split(key, 3)
    population, asked = strategy.ask(ask_key, state.strategy)
    losses, seen = _losses(rules, data, where, population, state.fixed, task_key)
    finite = jnp.isfinite(losses)
    # With the barrier, learning is compiled by itself, alike for one device and for many: fused with what comes before
    # it, sums would be rounded differently.
    told = strategy.tell(tell_key, *jax.lax.optimization_barrier((population, losses, asked)))
    told = strategy.with_mean(told, (1 - rules.mean_decay) * strategy.mean(told))
    works = finite.any() & (state.failed < 0)
    mean_loss = jnp.sum(jnp.where(finite, losses, 0.0)) / jnp.maximum(finite.sum(), 1)
    ends = np.array([0, population.shape[0] - 1])
    sample = Sample(population[ends].astype(jnp.float32), losses[ends].astype(jnp.float32), task_key)
    later = Evolution(
        strategy=_choose(works, told, state.strategy),
        fixed=_choose(works, dict(task.after_generation(state.fixed, seen)), dict(state.fixed)),
        key=state.key,
        generation=state.generation + 1,
        loss_sum=state.loss_sum + jnp.where(works, mean_loss, jnp.nan),
        loss_count=state.loss_count + 1,
        failed=jnp.where((state.failed < 0) & ~works, state.generation + 1, state.failed),
    )
    return later, sample


def advance_stacked(rules: Rules, where: NDArray[Any]) -> Advance:
    """Return a compiled `advance(states, data, count)` for R evolutions stacked along a leading axis.

    `where` is [R, D]; `count` generations are run without coming back to Python. Samples have the leading axis, too.
    """

    def run(states: Evolution, data: Any, places: jax.Array, count: jax.Array) -> tuple[Evolution, Sample]:
        step = jax.vmap(lambda w, s: generation(rules, data, w, s))
        return _repeated(lambda s: step(places, s), states, where.shape[1], count)

    advance, places = jax.jit(_on_every_device(rules, run)), jnp.asarray(where)
    return lambda states, data, count: advance(states, data, places, jnp.asarray(count, jnp.int32))


def advance_single(rules: Rules, where: NDArray[Any]) -> Advance:
    """Return a compiled `advance` for one evolution (with a leading axis of 1), whose mask [1, D] the task may know."""

    def run(states: Evolution, data: Any, count: jax.Array) -> tuple[Evolution, Sample]:
        single = jax.tree.map(lambda leaf: leaf[0], states)
        single = _repeated(lambda s: generation(rules, data, where[0], s), single, where.shape[1], count)
        return jax.tree.map(lambda leaf: leaf[None], single)

    advance = jax.jit(_on_every_device(rules, run))
    return lambda states, data, count: advance(states, data, jnp.asarray(count, jnp.int32))


def evaluated(states: Evolution) -> Evolution:
    """Return the evolutions with the sums since the last evaluation set back."""
    return replace(states, loss_sum=jnp.zeros_like(states.loss_sum), loss_count=jnp.zeros_like(states.loss_count))


def _repeated(
    step: Callable[[Evolution], tuple[Evolution, Sample]], states: Evolution, survivors: int, count: jax.Array
) -> tuple[Evolution, Sample]:
    """Take `count` steps; the sample is that of the last one."""
    stacked = states.generation.shape
    # Where JAX has float64, its zeros would be that.
    members, losses = (jnp.zeros((*stacked, *shape), jnp.float32) for shape in ((2, survivors), (2,)))
    empty = Sample(members, losses, jnp.zeros_like(states.key))
    return jax.lax.fori_loop(0, count, lambda _, both: step(both[0]), (states, empty))


def _losses(
    rules: Rules, data: Any, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
) -> tuple[jax.Array, Any]:
    """As `Task.losses`; with several devices, each evaluates its share of the members."""
    if len(rules.devices) == 1:
        return rules.task.losses(data, where, population, fixed, key)
    share = population.shape[0] // len(rules.devices)
    own = jax.lax.dynamic_slice_in_dim(population, jax.lax.axis_index(MEMBERS) * share, share)
    results = rules.task.losses(data, where, own, fixed, key)
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, MEMBERS, tiled=True), results)


def _on_every_device(rules: Rules, step: Callable[..., Any]) -> Callable[..., Any]:
    """Let every device run `step` on the same arguments: they share the members' evaluation, and nothing else.

    All draw the whole population and learn from all losses in the same order, so that several devices give the bits of
    one.
    """
    if len(rules.devices) == 1:
        return step
    mesh = Mesh(np.asarray(rules.devices), (MEMBERS,))
    return jax.shard_map(step, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)


def _choose(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
