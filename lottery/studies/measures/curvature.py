"""Curvature of the loss: Hessian-vector products, top eigenvalues, trace, and flatness along random directions.

Everything is taken over the coordinates that training moves: the surviving weights of the mask, and every entry of the
other trainable parameters (biases, normalization); of these, under `train_only`, what it names. The network is in
evaluation mode: batch norms use their running statistics and dropout is off, so the loss is one fixed function of these
coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.data.batch import chunks
from lottery.data.batches import Batch, move, sample, size
from lottery.networks.objectives.objective import Objective, call
from lottery.networks.objectives.tallies import Tally
from lottery.networks.threads import threads_for, using_threads
from lottery.networks.trainable import trainable_names
from lottery.state.counts import check_count
from lottery.studies.view import TorchView
from pruning.calls.users_code import users_code
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.torch_modules import apply_mask

EXAMPLES = 1000
_BATCH = 250


@dataclass(frozen=True)
class Surface:
    """The loss of one network on fixed examples, as a function of its coordinates.

    Attributes:
        network: masked, in evaluation mode; never changed.
        coordinates: trained parameters by name, each with the flat positions that count.
        batches: the examples, on the network's device.
        objective: loss and metric.
        threads: how many CPU threads PyTorch may use.
    """

    network: nn.Module
    coordinates: dict[str, tuple[nn.Parameter, torch.Tensor]]
    batches: tuple[Batch, ...]
    objective: Objective
    threads: int

    @property
    def dimension(self) -> int:
        """How many coordinates there are."""
        return sum(len(index) for _, index in self.coordinates.values())

    @property
    def device(self) -> torch.device:
        """Where the coordinates are."""
        return next(iter(self.coordinates.values()))[0].device

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the Hessian of the mean loss times a vector [dimension], in float64; by double backward."""
        tangents = _spread(self.coordinates, vector)
        parameters = [parameter for parameter, _ in self.coordinates.values()]
        examples = sum(size(targets) for _, targets in self.batches)
        total = torch.zeros(self.dimension, dtype=torch.float64, device=self.device)
        for inputs, targets in self.batches:
            with users_code("the model or the loss"):
                loss = self.objective.loss(call(self.network, inputs), targets)
            first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            slope = torch.stack([(g * t).sum() for g, t in zip(first, tangents, strict=True)]).sum()
            if slope.requires_grad:  # a loss that is linear in the weights has no second derivative
                second = torch.autograd.grad(slope, parameters, materialize_grads=True)
                total += _gather(self.coordinates, second) * (size(targets) / examples)
        return total

    def measure(self, step: torch.Tensor | None = None) -> tuple[float, float]:
        """Return the mean loss and the metric, at the network or a step [dimension] away from it."""
        network = self.network if step is None else self._moved(step)
        tally = Tally(self.objective)
        with torch.no_grad(), self.objective.measuring():
            for inputs, targets in self.batches:
                tally.add(call(network, inputs), targets)
            return tally.result()

    def _moved(self, step: torch.Tensor) -> nn.Module:
        network = copy_module(self.network)
        named = dict(network.named_parameters())
        with torch.no_grad():
            for name, tangent in zip(self.coordinates, _spread(self.coordinates, step), strict=True):
                named[name].add_(tangent)
        return network


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of a Hessian.

    Attributes:
        values: [count], the largest first.
        residuals: ‖H·x − λ·x‖ of each Ritz pair [count]: an eigenvalue lies within so much of the value.
    """

    values: NDArray[np.float64]
    residuals: NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """An estimate of a Hessian's trace, and its standard error over probes."""

    value: float
    error: float


@dataclass(frozen=True)
class Flatness:
    """Loss and metric around a network.

    Attributes:
        sigmas: standard deviation of the step of every coordinate [sigmas].
        loss: [sigmas, directions].
        metric: [sigmas, directions].
        centre: loss and metric at the network itself.
    """

    sigmas: NDArray[np.float64]
    loss: NDArray[np.float64]
    metric: NDArray[np.float64]
    centre: tuple[float, float]


def surface(
    view: TorchView,
    params: Params,
    mask: Mask,
    *,
    examples: int = EXAMPLES,
    seed: int = 0,
    train_only: Sequence[str] = (),
) -> Surface:
    """Return the training loss around one network.

    Args:
        view: networks and data.
        params: parameters and buffers.
        mask: which weights survive.
        examples: the most training examples to look at (the first of a seeded order).
        seed: of that order.
        train_only: which parameters training moved (`lottery.networks.trainable.trainable_names`); nothing means all.

    Raises:
        BadValue: no coordinate is left, or no example.
        MaskMismatch: a mask that does not fit the model.
        UnknownName: a pattern of `train_only` that matches nothing.
    """
    check_count("examples", examples)
    network = apply_mask(view.network(params), mask)
    named = dict(network.named_parameters())
    fitted = mask.fit({name: tuple(p.shape) for name, p in named.items()})
    coordinates = {}
    for name in trainable_names(network, train_only):
        parameter = named[name]
        keep = fitted[name] if name in fitted else np.ones(tuple(parameter.shape), bool)
        coordinates[name] = (parameter, torch.from_numpy(np.flatnonzero(keep)).to(view.device))
    batches = tuple(chunks(move(sample(view.parts.train, examples, seed), view.device), _BATCH))
    found = Surface(network, coordinates, batches, view.objective, threads_for(network, batches[0][0]))
    if not found.dimension:
        raise BadValue("this network has no trainable weight: its loss has no curvature")
    return found


def top_eigenvalues(where: Surface, count: int = 1, iterations: int = 20, seed: int = 0) -> Eigenvalues:
    """Return the largest eigenvalues (algebraically) of the Hessian, by Lanczos with full reorthogonalisation.

    Args:
        where: the loss as a function of the coordinates.
        count: how many.
        iterations: Hessian-vector products at most (as many as there are coordinates give all eigenvalues).
        seed: the seed of the first vector.

    Raises:
        BadValue: more eigenvalues than iterations or coordinates.

    Source: Golub & Van Loan, Matrix Computations, section 10.1 to 10.3; Ghorbani et al. 2019 (arXiv 1901.10159).
    """
    check_count("iterations", iterations)
    check_count("count", count)
    steps = min(iterations, where.dimension)
    if not 1 <= count <= steps:
        raise BadValue(f"count must be from 1 to {steps} (iterations, coordinates), not {count}")
    generator = torch.Generator().manual_seed(seed)
    with using_threads(where.threads):
        basis = [_new_direction([], where, generator)]
        diagonal, beside = [], []
        for step in range(steps):
            image = where.product(basis[-1])
            diagonal.append(float(image @ basis[-1]))
            rest = _orthogonal(image, basis)
            norm = float(rest.norm())
            # An invariant subspace is complete: what is left of the image is rounding. Go on from a new direction.
            broken = norm <= 1e-10 * max(1e-30, *map(abs, diagonal), *beside)
            beside.append(0.0 if broken else norm)
            if step + 1 < steps:
                basis.append(_new_direction(basis, where, generator) if broken else rest / norm)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    residuals = np.abs(beside[-1] * vectors[-1])
    return Eigenvalues(values[::-1][:count].copy(), residuals[::-1][:count].copy())


def trace(where: Surface, probes: int = 10, seed: int = 0) -> Trace:
    """Return Hutchinson's estimate of the Hessian's trace: the mean of vᵀHv over vectors of random signs.

    Args:
        where: the loss as a function of the coordinates.
        probes: how many vectors; 2 or more, for the standard error.
        seed: the seed of the signs.

    Raises:
        BadValue: fewer than two probes.

    Source: Hutchinson 1990, A stochastic estimator of the trace of the influence matrix, section 2.
    """
    check_count("probes", probes, 2, "the standard error needs them")
    generator = torch.Generator().manual_seed(seed)
    found = []
    with using_threads(where.threads):
        for _ in range(probes):
            signs = torch.randint(0, 2, (where.dimension,), generator=generator).double().mul(2).sub(1).to(where.device)
            found.append(float(signs @ where.product(signs)))
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(probes)))


def flatness(where: Surface, sigmas: Sequence[float], directions: int = 5, seed: int = 0) -> Flatness:
    """Return loss and metric at w + σ·ε, with ε from a standard normal distribution over the coordinates.

    The same directions serve every σ. Steps are not scaled to the size of filters or layers: σ is in the unit of the
    weights, and the length of a step grows with the square root of the number of coordinates (random-direction
    flatness, as Lange & Sprekeler 2023 look at optima of evolution strategies, arXiv 2306.00045).

    Args:
        where: the loss as a function of the coordinates.
        sigmas: standard deviations of the step of a coordinate, 0 or more.
        directions: how many ε.
        seed: the seed of the directions.

    Raises:
        BadValue: a σ that is negative or no number, or no σ or direction.
    """
    check_count("directions", directions)
    if not sigmas or not all(0 <= sigma < math.inf for sigma in sigmas):
        raise BadValue(f"flatness needs finite sigmas of 0 or more, not {list(sigmas)}")
    generator = torch.Generator().manual_seed(seed)
    found = np.empty((2, len(sigmas), directions))
    with using_threads(where.threads):
        for column in range(directions):
            direction = torch.randn(where.dimension, generator=generator, dtype=torch.float64).to(where.device)
            for row, sigma in enumerate(sigmas):
                found[:, row, column] = where.measure(sigma * direction)
        centre = where.measure()
    return Flatness(np.array(sigmas, np.float64), found[0], found[1], centre)


def _spread(coordinates: dict[str, tuple[nn.Parameter, torch.Tensor]], vector: torch.Tensor) -> list[torch.Tensor]:
    """Return one tensor for each parameter: the vector at its coordinates, 0 elsewhere."""
    parts = vector.split([len(index) for _, index in coordinates.values()])
    tensors = []
    for (parameter, index), part in zip(coordinates.values(), parts, strict=True):
        flat = torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
        tensors.append(flat.index_copy(0, index, part.to(parameter.dtype)).view(parameter.shape))
    return tensors


def _gather(coordinates: dict[str, tuple[nn.Parameter, torch.Tensor]], tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    pairs = zip(coordinates.values(), tensors, strict=True)
    return torch.cat([tensor.reshape(-1)[index].double() for (_, index), tensor in pairs])


def _orthogonal(vector: torch.Tensor, basis: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a vector without its part along the basis, subtracted twice because once leaves rounding errors."""
    matrix = torch.stack(list(basis))
    for _ in range(2):
        vector = vector - matrix.T @ (matrix @ vector)
    return vector


def _new_direction(basis: Sequence[torch.Tensor], where: Surface, generator: torch.Generator) -> torch.Tensor:
    vector = torch.randn(where.dimension, generator=generator, dtype=torch.float64).to(where.device)
    vector = _orthogonal(vector, basis) if basis else vector
    return vector / vector.norm()
