"""Which way every layer of a level takes: dense, or its survivors alone; decided by costs that were measured once.

The decision is a function of the mask, the batch and the rates of the machine. It does not depend on what else runs:
rounding depends on it. A run keeps the rates that it was begun with, and goes on with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from lottery.trainers.gd.chain.architecture import Architecture, Link
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.native.threads import LANES

# Seconds that two threads lose at one of their two meetings in a step.
_MEETING = 8e-6
# A shard's gradients are added to those of the others: numbers per second.
_ADDED = 4e9
# Seconds that PyTorch needs for the calls of a layer in a step, and what every further core loses of the others' work.
_OVERHEAD, _LOST = 5e-5, 0.1
# As many as `steps.c` has room for.
MOST_SHARDS = 256
# By how much a sparse layer must be the cheaper one: the costs of a machine are known to a tenth or so.
_CLEARLY = 1.1
# With fewer examples a row of activations is no longer worth the load of its weight.
_LEAST = 2 * LANES


@dataclass(frozen=True)
class Rates:
    """Floating-point operations per second of one core, on layers like those of LeNet-300-100.

    Attributes:
        dense: of a product of dense matrices.
        sums: of a sparse matrix with activations, forward and backward.
        slopes: of the gradients of a sparse matrix.
        cores: how many cores a training may use.
    """

    dense: float
    sums: float
    slopes: float
    cores: int

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    @classmethod
    def of_json(cls, stored: Any) -> Rates:
        """Return what `as_json` gave; raises `BadValue` for anything else.

        >>> Rates.of_json(Rates(2e11, 3e10, 1e10, 2).as_json()).cores
        2
        """
        try:
            found = msgspec.convert(stored, cls)
        except msgspec.ValidationError as error:
            raise BadValue(f"no rates of a machine: {error}") from error
        if min(found.dense, found.sums, found.slopes, found.cores) <= 0:
            raise BadValue("no rates of a machine: all must be above 0")
        return found


@dataclass(frozen=True)
class Paths:
    """How a level is trained.

    Attributes:
        sparse: for each layer's weight, by name, whether its survivors alone are trained.
        shards: into how many parts a batch is cut; as many threads may work at once.
        seconds: that a step takes on an idle machine, by the model of costs.
        pays: whether that is less than PyTorch's operations would take on the cores of this machine.
    """

    sparse: Mapping[str, bool]
    shards: int
    seconds: float
    pays: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return what a level's record says of it: `sparse` or `dense` for each weight, and the shards."""
        ways = {name: "sparse" if sparse else "dense" for name, sparse in self.sparse.items()}
        return {"layers": ways, "shards": self.shards}


def choose_paths(architecture: Architecture, mask: Mask, batch: int, rates: Rates) -> Paths:
    """Return the cheapest way to train a level.

    Args:
        architecture: the layers.
        mask: of the level; a layer that it does not name is dense.
        batch: examples of a step.
        rates: of the machine.

    >>> layers = (Link("a", None, 784, 300, "relu"), Link("b", None, 300, 10, "identity"))
    >>> rates = Rates(dense=1e11, sums=3e10, slopes=2e10, cores=1)
    >>> thin = Mask({"a": [[n % 50 == 0 for n in range(784)]] * 300})
    >>> choose_paths(layers, thin, 64, rates).as_json()
    {'layers': {'a': 'sparse', 'b': 'dense'}, 'shards': 1}
    """
    columns = math.ceil(batch / LANES) * LANES
    sparse: dict[str, bool] = {}
    work = added = 0.0
    for number, link in enumerate(architecture):
        kept = mask[link.weight].sum() if link.weight in mask else link.inputs * link.outputs
        ways = {
            False: _dense_seconds(link, number > 0, columns, rates),
            True: _sparse_seconds(int(kept), number > 0, columns, rates),
        }
        sparse[link.weight] = way = _CLEARLY * ways[True] < ways[False] and link.weight in mask
        work += ways[way]
        added += (int(kept) if way else link.inputs * link.outputs) / _ADDED
    most = max(1, min(rates.cores, columns // _LEAST, MOST_SHARDS))
    seconds = {shards: _together(work, added, shards, columns) for shards in range(1, most + 1)}
    shards = min(seconds, key=lambda count: seconds[count])
    return Paths(sparse, shards, seconds[shards], seconds[shards] < _by_pytorch(architecture, columns, rates))


def _by_pytorch(architecture: Architecture, columns: int, rates: Rates) -> float:
    """Return the seconds of a dense step by PyTorch's operations, whose threads share every product."""
    work = sum(_dense_seconds(link, number > 0, columns, rates) for number, link in enumerate(architecture))
    return _OVERHEAD * len(architecture) + work * (1 + _LOST * (rates.cores - 1)) / rates.cores


def _dense_seconds(link: Link, below: bool, columns: int, rates: Rates) -> float:
    return (3 if below else 2) * 2.0 * link.inputs * link.outputs * columns / rates.dense


def _sparse_seconds(kept: int, below: bool, columns: int, rates: Rates) -> float:
    product = 2.0 * kept * columns
    return product * ((2 if below else 1) / rates.sums + 1 / rates.slopes)


def _together(work: float, added: float, shards: int, columns: int) -> float:
    """Return the seconds of a step whose batch is cut into shards, each of whole vectors."""
    if shards == 1:
        return work + added
    share = math.ceil(columns / LANES / shards) * LANES / columns
    return work * share + added * (1 + 1 / shards) + 2 * _MEETING * math.log2(2 * shards)
