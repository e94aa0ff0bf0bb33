"""The rates of this machine, measured once on one core and kept.

What counts is the ratio of dense to sparse products, so that a machine that is slower today makes no difference. Each
figure is the least processor time of several: what else runs takes none of it, and can only slow memory down.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Callable, Sequence
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

_BATCH, _EXAMPLES, _STEPS, _TIMES = 64, 256, 2, 60
_INPUTS, _UNITS, _CLASSES = 784, 300, 10
_DENSITY = 0.1

TYPICAL = Rates(dense=1.3e11, sums=7e10, slopes=4e10, cores=1)
"""Of one core with AVX-512, as measured rates are."""


def rates_of_machine(library: Library) -> Rates:
    """Return the rates of this machine, from disk where they were measured before; else a quarter of a second.

    Where nothing can be kept (no home, or one that cannot be written), they are `TYPICAL`: rates that are measured anew
    for every search would let its rounding depend on what else ran. A training may use as many cores as PyTorch does.
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
    except (OSError, StorageError):
        found = TYPICAL
    return replace(found, cores=max(1, min(usable_cores(), torch.get_num_threads())))


def measured_rates(library: Library) -> Rates:
    """Return the rates of this machine, measured now."""
    model = nn.Sequential(nn.Linear(_INPUTS, _UNITS), nn.ReLU(), nn.Linear(_UNITS, _CLASSES))
    architecture = architecture_of(model)
    assert isinstance(architecture, tuple)
    rng = np.random.Generator(np.random.PCG64(0))
    few, some = (Mask({"0.weight": rng.random((_UNITS, _INPUTS)) < density}) for density in (1 / _INPUTS, _DENSITY))
    dense = Mask.dense({"0.weight": (_UNITS, _INPUTS)})
    runs = [
        *_runs(library, architecture, model, few, sparse=True),
        *_runs(library, architecture, model, some, sparse=True),
        *_runs(library, architecture, model, dense, sparse=False),
    ]
    sums_0, step_0, sums_1, step_1, _, step_dense = _fastest(runs)
    product = 2.0 * (some.kept - few.kept) * _BATCH
    forward = max(sums_1 - sums_0, 1e-9)
    backward = max(step_1 - step_0 - forward, 1e-9)
    whole = 2 * 2.0 * _INPUTS * _UNITS * _BATCH
    return Rates(whole / max(step_dense - step_0, 1e-9), product / forward, product / backward, usable_cores())


_Run = tuple[Callable[[], object], float]
"""What is timed, and how many batches that is."""


def _runs(
    library: Library, architecture: Architecture, model: nn.Module, mask: Mask, sparse: bool
) -> tuple[_Run, _Run]:
    """Return a forward pass, and steps."""
    paths = Paths({"0.weight": sparse}, 1, 0.0)
    rule = Rule(CROSS_ENTROPY, 0.0, "sgd", 0.0, False, 0.0, 0.0)
    program = Program(library, architecture, model, mask, paths, _BATCH, rule, {})
    inputs, targets = torch.ones(_EXAMPLES, _INPUTS), torch.zeros(_EXAMPLES, dtype=torch.int64)
    order = torch.arange(_STEPS * _BATCH) % _EXAMPLES
    forward = functools.partial(program.outputs, inputs)
    steps = functools.partial(program.steps, inputs, targets, order, [0.0] * _STEPS, 1)
    return (forward, _EXAMPLES / _BATCH), (steps, float(_STEPS))


def _fastest(runs: Sequence[_Run]) -> list[float]:
    """Return the least seconds of a batch of each, all of them in turn: the machine is the same for all."""
    found = [math.inf] * len(runs)
    for _ in range(_TIMES):
        for place, (run, batches) in enumerate(runs):
            began = time.thread_time()
            run()
            found[place] = min(found[place], (time.thread_time() - began) / batches)
    return found


def _read(path: Path) -> Rates:
    try:
        return Rates.of_json(msgspec.json.decode(path.read_bytes()))
    except (msgspec.DecodeError, BadValue) as error:
        raise FileFormatError(f"{path}: the rates of this machine cannot be read: {error}; remove the file") from error
