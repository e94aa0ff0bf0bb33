"""Where a step's time goes: the costs by which layers are trained sparse, and the parts of a step, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lottery.bench.loops.lenet import LR, Case, lenet
from lottery.data.batches import training_order
from lottery.data.parts import Tensors
from lottery.results.columns import Report, report
from lottery.results.reporting import table
from lottery.trainers.gd.chain.chain import Chain, chain_for
from lottery.trainers.gd.chain.library import PARTS
from lottery.trainers.gd.loop.network import network_for
from lottery.trainers.gd.trainer import GDTrainer, isolated
from pruning.errors import DeviceError

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_STEPS = 100


def profiled(data: str, repeats: int, device: str) -> dict[str, Any]:
    """Return the rates of this machine, and for LeNet at seven densities the microseconds of every part of a step.

    Args:
        data: a data set or a path, or `synthetic`.
        repeats: how often steps are timed; each part's fastest counts.
        device: where to train.

    Raises:
        DeviceError: compiled steps that are not to be had.
    """
    case = lenet(data, device)
    trainer = case.setup.trainer
    assert isinstance(trainer, GDTrainer)
    if trainer.chain is None:
        found = chain_for(trainer.model, trainer.parts, trainer.objective, trainer.config)
        raise DeviceError(f"there are no compiled steps to look into: {getattr(found, 'reason', 'not on this device')}")
    rows = [_row(case, trainer, trainer.chain, density, repeats) for density in DENSITIES]
    return {"rates": trainer.chain.rates.as_json(), "rows": rows}


def shown(found: Mapping[str, Any]) -> Report:
    """Return what `profiled` gives as people read it."""
    rates = found["rates"]
    words = ", ".join(f"{name} {rates[name] / 1e9:.0f}" for name in ("dense", "sums", "slopes"))
    head = f"Rates of one core, measured once and kept: {words} GFLOP/s; {rates['cores']} cores."
    header = ["density", "layers", "shards", "model", "step", *PARTS]
    lines = [
        [f"{row['density']:.0%}", row["layers"], str(row["shards"]), *(f"{row[key]:.0f}" for key in header[3:])]
        for row in found["rows"]
    ]
    return report(head, "Microseconds of a step; `model` is what the costs predict.", table(header, lines, left=[1]))


def _row(case: Case, trainer: GDTrainer, chain: Chain, density: float, repeats: int) -> dict[str, Any]:
    job, part = case.thinned(density), trainer.parts.train
    assert isinstance(part, Tensors)
    paths = chain.paths(job.mask)
    orders = training_order(part, chain.batch, 0, 0, min(_STEPS, job.budget.stop))
    order = torch.cat(list(orders))
    rates = [LR] * (len(order) // chain.batch)
    times: Sequence[np.ndarray[Any, Any]] = []
    with isolated(trainer.device, 0, 1):
        network = network_for(trainer.model, job, (), trainer.device)
        program = chain.program(network.model, job.mask, {})
        for _ in range(repeats + 1):
            clock = np.zeros(len(PARTS))
            program.steps(part.inputs, part.targets, order, rates, paths.shards, clock)
            times = [*times, clock / len(rates)]
    parts = 1e6 * np.min(times[1:], axis=0)
    ways = "".join("s" if sparse else "d" for sparse in paths.sparse.values())
    return {
        "density": density,
        "layers": ways,
        "shards": paths.shards,
        "model": 1e6 * paths.seconds,
        "step": float(parts.sum()),
        **{name: float(value) for name, value in zip(PARTS, parts, strict=True)},
    }
