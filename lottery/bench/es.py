"""How fast a generation of evolution is: the evolution paper's CNN, and LeNet-300-100 at several densities."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.config import ESConfig
from es.coordinates import pack, positions, unpack
from es.device import Device
from es.evolution import Rules, advance_single, begin
from es.strategies import make_strategy
from es.tasks.supervised import Supervised
from lottery.bench import Report, benchmark, row, timed_rounds
from lottery.data import Data
from lottery.data.datasets import load_data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import model_source
from lottery.trainers import Ask
from lottery.trainers.es.check import CheckedTrainer
from lottery.trainers.es.setup import setup
from pruning.mask import Mask
from pruning.watch import Silent

POPULATION, BATCH = 128, 1024
# The plain formulation of the CNN needs more than 24 GB for the whole batch at once.
PIECE = 256
CNN, LENET = "cnn-8-16", "lenet-300-100"
DENSITIES = (1.0, 0.05, 0.01)


@dataclass(frozen=True)
class Case:
    """One network, ready to be evolved."""

    task: Supervised
    params: dict[str, Any]
    dense: Mask
    device: str
    devices: tuple[Device, ...]


@benchmark(
    "es", source="against jax.vmap of the network over densely scattered weights, a Python loop over generations"
)
def bench_es(data: str, repeats: int, device: str) -> Report:
    """Seconds a generation of evolution: population 128, batch 1,024, SNES, float32.

    The plain formulation scatters the population into dense arrays, maps the network over it with `jax.vmap`, and
    comes back to Python after every generation (and, to fit into memory, after every 256 examples). Masks are random,
    of the same density in every layer. The matrix product alone is as many operations as the network's, in one large
    float32 product: the arithmetic limit.

    Args:
        data: a data set of 28×28 images or a path; `synthetic` makes random images.
        repeats: timed generations of each.
        device: as for `lottery prune`.
    """
    cases = {model: _case(model, data, device) for model in (CNN, LENET)}
    where = cases[CNN].device
    runs: dict[str, Callable[[], float]] = {
        f"{CNN}, plain, dense": _plain(cases[CNN], 1.0),
        f"{CNN}, this trainer, dense": _ours(cases[CNN], 1.0),
        f"{CNN}, matrix product alone": _product(cases[CNN]),
        f"{LENET}, plain, dense": _plain(cases[LENET], 1.0),
        **{f"{LENET}, this trainer, density {d:.0%}": _ours(cases[LENET], d) for d in DENSITIES},
        f"{LENET}, matrix product alone": _product(cases[LENET]),
    }
    seconds = timed_rounds(runs, repeats)
    facts = {"precision": "float32", "population": POPULATION, "batch": BATCH, "device": where}
    rows = [
        row(name, "generation", taken, seconds[f"{name.split(',')[0]}, plain, dense"], **facts)
        for name, taken in seconds.items()
    ]
    note = (
        f"population {POPULATION}, batch {BATCH}, SNES, JAX's default precision (float32 on a CPU, TF32 on a GPU), "
        f"{where}; median of {repeats} generations; speed-up against the plain formulation of the same network, which "
        f"takes the batch in pieces of {PIECE}: all of it would not fit into 24 GB"
    )
    return Report(rows, "generation", note)


def _case(model: str, data: str, device: str) -> Case:
    given = _synthetic() if data == "synthetic" else load_data(data)
    parts = prepare(Data(given.train, name=given.name, validation_size=BATCH), seed=0)
    source = model_source(model, parts, "model")
    config = ESConfig(population=POPULATION, batch_size=BATCH, device=device)
    ready = setup(Ask(source, parts, config, None, None, Silent(), 0))
    assert isinstance(ready.trainer, CheckedTrainer)
    trainer = ready.trainer.trainer
    assert isinstance(trainer.task, Supervised)
    return Case(
        trainer.task,
        source.initial_state(0),
        Mask.dense(source.prunable(0, (), ())),
        ready.device,
        trainer.devices,
    )


def _synthetic() -> Data:
    rng = np.random.Generator(np.random.PCG64(0))
    return Data(train=(rng.standard_normal((8 * BATCH, 1, 28, 28), np.float32), rng.integers(0, 10, 8 * BATCH)))


def _mask(case: Case, density: float) -> Mask:
    rng = np.random.Generator(np.random.PCG64(1))
    return Mask({name: rng.random(shape) < density for name, shape in case.dense.shapes().items()})


def _ours(case: Case, density: float) -> Callable[[], float]:
    """Return what times one generation of the compiled loop."""
    where = positions(case.task.space, _mask(case, density))
    strategy = make_strategy("snes", POPULATION, len(where), 0.05)
    advance = advance_single(Rules(strategy, case.task, 0.0, case.devices), where[None])
    fixed = {name: jnp.asarray(v) for name, v in case.params.items() if name not in case.task.space.names}
    mean = jnp.asarray(pack(case.task.space, where, case.params))
    states = jax.tree.map(lambda leaf: leaf[None], begin(strategy, mean, fixed, seed=0, start=0))

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(advance(states, case.task.data, 1))
        return time.perf_counter() - began

    return run


def _plain(case: Case, density: float) -> Callable[[], float]:
    """Return what times one generation in the plain formulation."""
    space, network = case.task.space, case.task.network
    where = positions(space, _mask(case, density))
    strategy = make_strategy("snes", POPULATION, len(where), 0.05)
    fixed = {name: jnp.asarray(v) for name, v in case.params.items() if name not in space.names}
    pieces = [
        jax.tree.map(lambda leaf, start=start: leaf[start : start + PIECE], case.task.train)
        for start in range(0, BATCH, PIECE)
    ]

    @jax.jit
    def losses(population: jax.Array, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        dense = jax.vmap(lambda vector: unpack(space, where, vector))(population)
        outputs = jax.vmap(lambda weights: network.apply({**fixed, **weights}, inputs))(dense)
        return jax.vmap(case.task.loss, in_axes=(0, None))(outputs, targets)

    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state = strategy.init(jax.random.PRNGKey(0), jnp.asarray(pack(space, where, case.params)))

    def run() -> float:
        began = time.perf_counter()
        population, asked = ask(jax.random.PRNGKey(1), state)
        mean = sum(jax.block_until_ready(losses(population, *piece)) for piece in pieces) / len(pieces)
        jax.block_until_ready(tell(jax.random.PRNGKey(2), population, mean, asked))
        return time.perf_counter() - began

    return run


def _product(case: Case) -> Callable[[], float]:
    """Return what times as many operations as one generation's in one large square-ish product."""
    width = 2048
    rows = max(1, round(case.task.flops * POPULATION / (2 * width * width)))
    product = jax.jit(lambda a, b: a @ b)
    a, b = jnp.ones((rows, width)), jnp.ones((width, width))

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(product(a, b))
        return time.perf_counter() - began

    return run
