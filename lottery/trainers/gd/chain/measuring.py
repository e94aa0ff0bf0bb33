"""The rates of this machine, measured once on one core and kept.

What counts is the ratio of dense to sparse products, so that a machine that is slower today makes no difference. Each
figure is the least processor time of several: what else runs takes none of it, and can only slow memory down.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from filelock import FileLock
from torch import nn

from lottery.trainers.gd.chain.architecture import Architecture, architecture_of
from lottery.trainers.gd.chain.library import Library
from lottery.trainers.gd.chain.paths import Paths, Rates
from lottery.trainers.gd.chain.program import CROSS_ENTROPY, Program, Rule
from pruning.disk.files import write_json
from pruning.errors import BadValue, FileFormatError, StorageError
from pruning.hardware import instructions, processor, usable_cores
from pruning.mask import Mask
from pruning.sparse.native.compiling import cache_folder

_BATCH, _EXAMPLES, _STEPS, _TIMES = 64, 512, 2, 40
_INPUTS, _UNITS, _CLASSES = 784, 300, 10
_DENSITY = 0.1


def rates_of_machine(library: Library) -> Rates:
    """Return the rates of this machine, from disk where they were measured before; else a quarter of a second.

    A training may use as many cores as PyTorch does.
    """
    digest = hashlib.sha256(f"{processor()} {instructions()} {torch.__version__}".encode()).hexdigest()[:16]
    try:
        folder = cache_folder() / "native"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rates-{digest}.json"
        with FileLock(path.with_suffix(".lock")):
            if path.is_file():
                found = _read(path)
            else:
                found = measured_rates(library)
                write_json(path, found.as_json())
    except (OSError, StorageError):  # no home, or one that cannot be written: measured anew every time
        found = measured_rates(library)
    return replace(found, cores=max(1, min(usable_cores(), torch.get_num_threads())))


def measured_rates(library: Library) -> Rates:
    """Return the rates of this machine, measured now."""
    model = nn.Sequential(nn.Linear(_INPUTS, _UNITS), nn.ReLU(), nn.Linear(_UNITS, _CLASSES))
    architecture = architecture_of(model)
    assert isinstance(architecture, tuple)
    rng = np.random.Generator(np.random.PCG64(0))
    few, some = (Mask({"0.weight": rng.random((_UNITS, _INPUTS)) < density}) for density in (1 / _INPUTS, _DENSITY))
    sums_0, step_0 = _seconds(library, architecture, model, few, sparse=True)
    sums_1, step_1 = _seconds(library, architecture, model, some, sparse=True)
    _, dense = _seconds(library, architecture, model, Mask.dense({"0.weight": (_UNITS, _INPUTS)}), sparse=False)
    product = 2.0 * (some.kept - few.kept) * _BATCH
    forward = max(sums_1 - sums_0, 1e-9)
    backward = max(step_1 - step_0 - forward, 1e-9)
    whole = 2 * 2.0 * _INPUTS * _UNITS * _BATCH
    return Rates(whole / max(dense - step_0, 1e-9), product / forward, product / backward, usable_cores())


def _seconds(
    library: Library, architecture: Architecture, model: nn.Module, mask: Mask, sparse: bool
) -> tuple[float, float]:
    """Return the seconds of a forward pass of a batch, and of a step."""
    paths = Paths({"0.weight": sparse}, 1, 0.0)
    rule = Rule(CROSS_ENTROPY, 0.0, "sgd", 0.0, False, 0.0, 0.0)
    program = Program(library, architecture, model, mask, paths, _BATCH, rule, {})
    inputs, targets = torch.ones(_EXAMPLES, _INPUTS), torch.zeros(_EXAMPLES, dtype=torch.int64)
    order = torch.arange(_STEPS * _BATCH) % _EXAMPLES
    forward = _fastest(functools.partial(program.outputs, inputs)) * _BATCH / _EXAMPLES
    steps = functools.partial(program.steps, inputs, targets, order, [0.0] * _STEPS, 1)
    return forward, _fastest(steps) / _STEPS


def _fastest(run: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_TIMES):
        began = time.thread_time()
        run()
        times.append(time.thread_time() - began)
    return min(times)


def _read(path: Path) -> Rates:
    try:
        return Rates.of_json(msgspec.json.decode(path.read_bytes()))
    except (msgspec.DecodeError, BadValue) as error:
        raise FileFormatError(f"{path}: the rates of this machine cannot be read: {error}; remove the file") from error
