"""Evaluations of a stack while it trains: the first by `evaluate_stack`, the others recorded where that can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from lottery.data.batch import copied
from lottery.data.batches import evaluation_batches
from lottery.data.parts import Tensors
from lottery.networks.objectives.objective import Objective
from lottery.networks.objectives.tallies import ratio
from lottery.trainers.gd.stack import Stack, evaluate_stack, measured_together
from lottery.trainers.gd.stacks.plain_state import plain_state
from lottery.trainers.gd.stacks.program import Program, Recorder
from pruning.copies.copying import copy_module
from pruning.errors import said

# How far two sums of one part may be apart where they were added up in batches of another size.
_NEAR = 1e-4


@dataclass
class Evaluations:
    """Measures the networks of a stack on one part, again and again.

    Attributes:
        stack: the networks.
        part: the data.
        objective: loss and metric.
        batch_size: examples at once, as when a network is trained alone: sums in another order round differently.
        at_once: examples at once where evaluations are recorded and the sums do not depend on it.
        recorder: records them; None where each is done as the first.
        tell: says why they are not recorded.
    """

    stack: Stack
    part: Tensors
    objective: Objective
    batch_size: int
    at_once: int
    recorder: Recorder | None
    tell: Callable[[str], None]
    _measuring: _Measuring | None = field(default=None, init=False)
    _program: Program | None = field(default=None, init=False)

    def measured(self, rows: Sequence[int]) -> list[tuple[float, float]]:
        """Return the mean loss and the metric of the networks in these rows, in evaluation mode."""
        if self._program is not None and self._measuring is not None:
            self._program.run()
            return self._measuring.read(rows)
        found = evaluate_stack(self.stack, rows, self.part, self.objective, self.batch_size)
        if self.recorder is not None and self.objective.metric.adds_up:
            self._prepare(self.recorder, rows, found)
        return found

    def _prepare(self, recorder: Recorder, rows: Sequence[int], expected: list[tuple[float, float]]) -> None:
        """Record the evaluations that follow, where they give what the first one gave."""
        try:
            measuring = self._of(self.at_once, rows, expected) or self._of(self.batch_size, rows, expected)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a caller's metric may be anything: a NumPy function, one that waits for a value
            self.tell(f"the networks of a stack are measured one after the other: {said(error)}")
            measuring = None
        if measuring is None:
            self.recorder = None
            return
        self._measuring = measuring
        held = (measuring.model, self.objective.loss, self.objective.metric.function)
        self._program = Program(
            f"the evaluation of {len(self.stack)} networks",
            measuring.measure,
            lambda: [measuring.sums],
            recorder,
            self.tell,
            lambda: plain_state(*held),
        )

    def _of(self, size: int, rows: Sequence[int], expected: list[tuple[float, float]]) -> _Measuring | None:
        device = self.part.inputs.device
        sums = torch.zeros(len(self.stack), 4, dtype=torch.float64, device=device)
        model = copy_module(self.stack.model).eval()
        measuring = _Measuring(self.stack, model, self.part, self.objective.private(), size, sums)
        measuring.measure()
        near = np.allclose(measuring.read(rows), expected, rtol=_NEAR, atol=0.0, equal_nan=True)
        return measuring if near else None


@dataclass(frozen=True)
class _Measuring:
    """One evaluation of a stack without a word to the host.

    Attributes:
        stack: the networks.
        model: their architecture, in evaluation mode.
        part: the data.
        objective: this evaluation's own.
        size: examples at once.
        sums: [J, 4], those of the loss and of the metric.
    """

    stack: Stack
    model: nn.Module
    part: Tensors
    objective: Objective
    size: int
    sums: torch.Tensor

    @torch.no_grad()
    def measure(self) -> None:
        """Add up loss and metric over the whole part."""
        # What a network writes in evaluation mode does not reach the training.
        fixed = {name: tensor.clone() for name, tensor in self.stack.fixed.items()}
        looking = Stack(self.model, self.stack.trained, fixed)
        self.sums.zero_()
        with self.objective.measuring():
            for inputs, targets in evaluation_batches(self.part, self.size):
                inputs, targets = copied((inputs, targets))  # a model or a loss may change them in place
                self.sums.add_(measured_together(self.objective, looking.outputs(inputs), targets))

    def read(self, rows: Sequence[int]) -> list[tuple[float, float]]:
        """Return the mean loss and the metric of these networks; here the host waits for the device."""
        sums = self.sums.cpu()
        return [(ratio(sums[row, :2]), ratio(sums[row, 2:])) for row in rows]
