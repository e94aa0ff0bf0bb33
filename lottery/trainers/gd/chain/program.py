"""The compiled steps of one job: its arrays, and what `steps.c` does with them.

weights of the job ─▶ values (all of a dense layer, the survivors of a sparse one) ─▶ steps ─▶ weights of the model
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.trainers.gd.chain.architecture import ACTIVATIONS, Architecture, parameters_of
from lottery.trainers.gd.chain.library import ChainOf, LayerOf, Library, RunOf, TensorOf
from lottery.trainers.gd.chain.paths import Paths
from pruning.errors import RunError
from pruning.mask import Mask
from pruning.sparse.native.products import PatternOf
from pruning.sparse.native.threads import LANES
from pruning.sparse.plans.plan import Plan

_ALIGNED = 64
OPTIMIZERS = ("sgd", "adam", "adamw")
"""In the order of the numbers that the compiled steps know them by."""
CROSS_ENTROPY, SQUARED_ERROR = 0, 1


@dataclass(frozen=True)
class Rule:
    """What a step does with the gradients, and of what loss.

    Attributes:
        loss: `CROSS_ENTROPY` or `SQUARED_ERROR`.
        smoothing: of the labels.
        optimizer: one of `OPTIMIZERS`.
        momentum: of `sgd`.
        nesterov: whether its step looks ahead.
        decay: L2 penalty, or decoupled for `adamw`.
        clip: the largest norm of all gradients; 0 where there is none.
    """

    loss: int
    smoothing: float
    optimizer: str
    momentum: float
    nesterov: bool
    decay: float
    clip: float


class Program:
    """One network with its optimizer, ready to take steps.

    Args:
        library: the compiled functions.
        architecture: the layers.
        model: whose weights it begins with, and gets them back by `write`.
        mask: which of them take part.
        paths: which layers are sparse, and into how many shards a batch is cut.
        batch: examples of a step.
        rule: loss and optimizer.
        factors: by what the learning rates of single parameters are multiplied.
        silent: which inputs are 0 in every example for training [inputs]; None where none is.
    """

    def __init__(
        self,
        library: Library,
        architecture: Architecture,
        model: nn.Module,
        mask: Mask,
        paths: Paths,
        batch: int,
        rule: Rule,
        factors: Mapping[str, float],
        silent: NDArray[np.bool_] | None = None,
    ) -> None:
        self._library, self._kept = library, []
        self._parameters = {name: p for name, p in model.named_parameters() if name in set(parameters_of(architecture))}
        self._outputs = architecture[-1].outputs
        self._shards = paths.shards
        self._done = 0
        plans = {name: Plan.of(mask[name]) for name, sparse in paths.sparse.items() if sparse}
        self._positions = {name: torch.from_numpy(plan.positions) for name, plan in plans.items()}
        self._values: dict[str, torch.Tensor] = {}
        tensors = [self._tensor(name, mask, factors.get(name, 1.0)) for name in self._parameters]
        places = {name: place for place, name in enumerate(self._parameters)}
        wanted = _wanted(architecture, plans)
        layers = [
            LayerOf(
                inputs=link.inputs,
                outputs=link.outputs,
                activation=ACTIVATIONS.index(link.activation),
                weight=places[link.weight],
                bias=places[link.bias] if link.bias is not None else -1,
                **(self._patterns(plans[link.weight], None if number else silent) if link.weight in plans else {}),
                wanted=self._address(units) if units is not None else None,
            )
            for number, (link, units) in enumerate(zip(architecture, wanted, strict=True))
        ]
        self._chain = ChainOf(
            layers=self._array(LayerOf, layers),
            tensors=self._array(TensorOf, tensors),
            product=library.product,
            threads=library.threads,
            depth=len(layers),
            count=len(tensors),
            shards=paths.shards,
            width=math.ceil(math.ceil(batch / LANES) / paths.shards) * LANES,
            batch=batch,
            loss=rule.loss,
            optimizer=OPTIMIZERS.index(rule.optimizer),
            nesterov=rule.nesterov,
            smoothing=rule.smoothing,
            momentum=rule.momentum,
            decay=rule.decay,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            clip=rule.clip,
        )
        size = library.steps.scratch_size(ctypes.byref(self._chain))
        self._chain.scratch = self._address(aligned(size))

    def steps(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        order: torch.Tensor,
        rates: Sequence[float],
        threads: int,
        clock: NDArray[np.float64] | None = None,
    ) -> float:
        """Take steps, and return the sum of their losses. Python's other threads go on meanwhile.

        Args:
            inputs: of all examples [N, …], float32, contiguous.
            targets: labels, int64 [N]; or float32 [N, outputs].
            order: which examples each step sees, int64 [steps × batch].
            rates: the learning rate of each step.
            threads: how many may work at once; the bits do not depend on it.
            clock: to which the seconds of each of `PARTS` are added, float64.

        Raises:
            RunError: the system gives no thread or no memory.
        """
        given = np.asarray(rates, np.float64)
        run = RunOf(
            inputs=inputs.data_ptr(),
            targets=targets.data_ptr(),
            order=order.data_ptr(),
            rates=given.ctypes.data,
            steps=len(given),
            done=self._done,
            threads=max(1, min(threads, self._shards)),
            seconds=clock.ctypes.data if clock is not None else None,
        )
        error = self._library.steps.run_steps(ctypes.byref(self._chain), ctypes.byref(run))
        if error:
            raise RunError(f"a training step could not be started: {os.strerror(error)}")
        self._done += len(given)
        return run.loss

    def outputs(self, inputs: torch.Tensor, threads: int = 1) -> torch.Tensor:
        """Return the network's outputs [N, outputs] for inputs [N, …], float32; `threads` may work at once."""
        rows = inputs.contiguous()
        found = torch.empty(self._outputs, len(rows))
        if len(rows):
            chain = ctypes.addressof(self._chain)
            forward = self._library.steps.run_forward
            forward(chain, rows.data_ptr(), len(rows), found.data_ptr(), threads)
        return found.t().contiguous()

    @torch.no_grad()
    def write(self) -> None:
        """Write the weights into the model; removed ones are 0 there."""
        for name, parameter in self._parameters.items():
            where = self._positions.get(name)
            values = self._values[name]
            if where is not None:
                values = torch.zeros(parameter.numel()).index_copy_(0, where, values)
            parameter.copy_(values.view(parameter.shape))  # whose memory may lie in another order

    def _tensor(self, name: str, mask: Mask, factor: float) -> TensorOf:
        parameter, where = self._parameters[name], self._positions.get(name)
        flat = parameter.detach().reshape(-1)
        start = flat if where is None else flat[where]
        count = len(start)
        values = aligned(count)
        values[:] = start.numpy()
        self._values[name] = torch.from_numpy(values)
        keep = mask[name].reshape(-1) if name in mask and where is None and not mask[name].all() else None
        return TensorOf(
            values=self._address(values),
            gradients=self._address(aligned(count * self._shards)),
            first=self._address(aligned(count)),
            second=self._address(aligned(count)),
            keep=self._address(np.ascontiguousarray(keep, np.uint8)) if keep is not None else None,
            count=count,
            factor=factor,
            trained=parameter.requires_grad,
        )

    def _patterns(self, plan: Plan, silent: NDArray[np.bool_] | None) -> dict[str, PatternOf]:
        """Return where the weights of a sparse layer lie.

        What multiplies an input that is always 0 adds nothing and has no gradient: while training it is left out of
        the products, exactly. Decay and momentum go on, and other examples may have that input: they see all weights.
        """
        by_row, by_column = plan.rows, plan.transposed
        rows = PatternOf(self._address(by_row.starts), self._address(by_row.columns), None)
        at = self._address(plan.to_transposed)
        columns = PatternOf(self._address(by_column.starts), self._address(by_column.columns), at)
        return {"rows": rows, "columns": columns, "seen": rows if silent is None else self._seen(plan, silent)}

    def _seen(self, plan: Plan, silent: NDArray[np.bool_]) -> PatternOf:
        by_row = plan.rows
        heard = ~silent[by_row.columns]
        before = np.concatenate([[0], np.cumsum(heard)]).astype(np.int32)
        at = np.flatnonzero(heard).astype(np.int32)
        return PatternOf(*map(self._address, (before[by_row.starts], by_row.columns[heard], at)))

    def _address(self, array: NDArray[Any]) -> int:
        self._kept.append(array)  # lives as long as the steps may read it
        return array.ctypes.data

    def _array(self, kind: type[ctypes.Structure], entries: Sequence[ctypes.Structure]) -> int:
        array = (kind * len(entries))(*entries)
        self._kept.append(array)
        return ctypes.addressof(array)


def aligned(count: int) -> NDArray[np.float32]:
    """Return float32 zeros [count] at an address that vectors of any processor may be loaded from.

    >>> aligned(3).ctypes.data % 64
    0
    """
    raw = np.zeros(4 * count + _ALIGNED, np.uint8)
    first = -raw.ctypes.data % _ALIGNED
    return raw[first : first + 4 * count].view(np.float32)


def _wanted(architecture: Architecture, plans: Mapping[str, Plan]) -> list[NDArray[np.uint8] | None]:
    """Return for each layer which of its units anything reads; None where all may be read.

    A unit without a live outgoing weight changes no output, and its weights have no gradient. It is left out of the
    products exactly: decay and momentum go on, as they do where it is multiplied by zeros.
    """
    wanted: list[NDArray[np.uint8] | None] = [None] * len(architecture)
    for number in reversed(range(len(architecture) - 1)):
        after = plans.get(architecture[number + 1].weight)
        if after is None or architecture[number].weight not in plans:
            continue
        read = after.mask
        units = wanted[number + 1]
        if units is not None:
            read = read[units.astype(bool)]
        wanted[number] = np.ascontiguousarray(read.any(0), np.uint8)
    return wanted
