"""Networks of one architecture as one: every tensor with a leading axis over jobs, one forward pass for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from lottery.data.batch import copied
from lottery.data.batches import evaluation_batches
from lottery.data.parts import Tensors
from lottery.networks.objectives.metric import BatchFunction
from lottery.networks.objectives.objective import Objective
from lottery.networks.objectives.tallies import loss_sums, metric_sums, ratio, reading
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import State, named_tensors, to_numpy
from lottery.trainers.gd.loop.network import network_for
from pruning.copies.copying import copy_module
from pruning.jobs import Job


@dataclass(frozen=True)
class Stack:
    """Several networks as one; row j of every tensor belongs to job j.

    Attributes:
        model: the architecture on the device, in its training mode; its own weights are not used.
        trained: trainable parameters [J, …] by name.
        fixed: frozen parameters and buffers [J, …] by name; a layer may write its buffers in place.
    """

    model: nn.Module
    trained: dict[str, nn.Parameter]
    fixed: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.trained.values())))

    def losses(self, loss: BatchFunction, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return each job's loss [J] on its own batch: row j of inputs [J, B, …] and targets [J, B, …]."""

        def one(trained: Any, fixed: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return loss(functional_call(self.model, (trained, fixed), (inputs,)), targets)

        return vmap(one)(self.trained, self.fixed, inputs, targets)

    def training_outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return each network's outputs [J, B, …] for its own batch: row j of inputs [J, B, …]."""

        def one(trained: Any, fixed: Any, inputs: torch.Tensor) -> torch.Tensor:
            return functional_call(self.model, (trained, fixed), (inputs,))

        return vmap(one)(self.trained, self.fixed, inputs)

    def in_evaluation(self) -> Stack:
        """Return copies of the networks in evaluation mode: what the copies write does not reach the training."""
        fixed = {name: tensor.clone() for name, tensor in self.fixed.items()}
        return Stack(copy_module(self.model).eval(), self.trained, fixed)

    @torch.no_grad()
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of every network for the same inputs [B, …]: [J, …]."""

        def one(trained: Any, fixed: Any) -> torch.Tensor:
            return functional_call(self.model, (trained, fixed), (inputs,))

        return vmap(one)(self.trained, self.fixed)

    def network(self, row: int) -> State:
        """Return one job's tensors, copied to the host, in the model's order."""
        tensors = {**self.trained, **self.fixed}
        return {name: to_numpy(tensors[name][row]) for name in named_tensors(self.model)}


def stack_of(model: nn.Module, jobs: Sequence[Job], train_only: Sequence[str], device: torch.device) -> Stack:
    """Return the jobs' networks at their rewind points, masked, with what `train_only` leaves alone frozen."""
    networks = [network_for(model, job, train_only, device).model for job in jobs]
    rows = [named_tensors(network) for network in networks]
    stacked = {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}
    trainable = {name for name, tensor in rows[0].items() if tensor.requires_grad}
    return Stack(
        networks[0],
        {name: nn.Parameter(tensor) for name, tensor in stacked.items() if name in trainable},
        {name: tensor for name, tensor in stacked.items() if name not in trainable},
    )


def evaluate_stack(
    stack: Stack, rows: Sequence[int], part: Tensors, objective: Objective, batch_size: int
) -> list[tuple[float, float]]:
    """Return the mean loss and the metric over `part` of the networks in these rows, in evaluation mode.

    The first batch is measured network by network. Where loss and metric give the same for all networks at once, the
    other batches are measured so, and nothing waits for the device until the end. A metric that does not add up over
    batches is read from each network's outputs in the end.
    """
    chosen = torch.tensor(rows, device=part.inputs.device)
    total: torch.Tensor | None = None
    together = False
    readings = [] if objective.metric.adds_up else [reading(objective.metric) for _ in rows]
    objective = objective.private()  # a loss or a metric of the caller's may count what it sees
    with torch.no_grad(), seeded_everywhere(0), objective.measuring():
        looking = stack.in_evaluation()
        for number, (inputs, targets) in enumerate(evaluation_batches(part, batch_size)):
            inputs, targets = copied((inputs, targets))  # a model or a loss may change them in place
            outputs = looking.outputs(inputs).index_select(0, chosen)
            if together:
                measured = measured_together(objective, outputs, targets)
            else:
                measured = torch.stack([_sums(objective, output, targets) for output in outputs])
                together = number == 0 and _agree(objective, outputs, targets, measured)
            total = measured if total is None else total + measured
            for each, output in zip(readings, outputs, strict=False):
                each.add(output, targets)
        assert total is not None
        sums = total.cpu()
        losses = [ratio(row[:2]) for row in sums]
        metrics = [each.value() for each in readings] or [ratio(row[2:]) for row in sums]
    return list(zip(losses, metrics, strict=True))


def _sums(objective: Objective, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sums of a batch for the loss, and for a metric that adds up: float64 [2] or [4], on its device."""
    found = [loss_sums(objective.loss, outputs, targets)]
    if objective.metric.adds_up:
        found.append(metric_sums(objective.metric, outputs, targets))
    return torch.cat([pair.to(outputs.device) for pair in found])


def measured_together(objective: Objective, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sums of a batch of the loss, and of a metric that adds up, of every network: float64 [J, 2 or 4].

    Raises whatever a loss or a metric raises that takes one network's outputs at a time.

    Args:
        objective: loss and metric.
        outputs: [J, B, …].
        targets: [B, …], the same for all.
    """
    return vmap(lambda one: _sums(objective, one, targets))(outputs)


def _agree(objective: Objective, outputs: torch.Tensor, targets: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        found = measured_together(objective, outputs, targets)
    except Exception:  # a caller's metric may be anything: a NumPy function, one that returns a plain number
        return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-8, equal_nan=True)
