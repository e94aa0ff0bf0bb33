"""How sure gradient descent is of each weight: estimators of a standard deviation, by name.

`adam` and `fisher` say how far a weight could move before the data object (curvature at the end of training), `swag`
how far the optimizer did move it. They agree on a weight that the data say nothing about (a pixel that is always
black, a unit that nothing reads): it gets the standard deviation of the prior, which is wide. A large standard
deviation makes a small signal-to-noise ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.data.batch import chunks, is_divisible, move, rows, size
from lottery.data.batches import Batch
from lottery.data.parts import Loader, Part, Tensors
from lottery.networks.example_gradients import NetworkLoss, chunk_size, mean_squares, require_divisible
from lottery.networks.objectives.metric import BatchFunction
from pruning.errors import BadValue
from pruning.jobs import Job
from pruning.masks.complex_tensors import halves

Std = dict[str, NDArray[np.float32]]

# A prior so wide that it decides nothing about a weight with any curvature, and keeps one with none finite.
PRIOR_PRECISION = 1e-8


@dataclass(frozen=True)
class Training:
    """One training, from before its first step, as an estimator sees it.

    Attributes:
        model: on the device; its weights change under the estimator.
        optimizer: the optimizer of that model.
        job: which tensors to estimate (those of the mask), which steps, which seed.
        part: the training examples.
        loss: `loss(outputs, targets)`.
        device: where the model is.
        window: fraction of the steps, at the end, that `swag` looks at.
        examples: the most examples that `fisher` looks at.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    job: Job
    part: Part
    loss: BatchFunction
    device: torch.device
    window: float
    examples: int

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters to estimate, by name, in the mask's order."""
        named = dict(self.model.named_parameters())
        return {name: named[name] for name in self.job.mask}

    def masked(self, std: Mapping[str, torch.Tensor]) -> Std:
        """Return the estimates on the host as float32, 0 for removed weights."""
        arrays = {name: value.to(torch.float32).cpu().numpy() for name, value in std.items()}
        return {name: np.where(keep, arrays[name], np.float32(0)) for name, keep in self.job.mask.items()}


class Estimator(Protocol):
    """Watches one training and says at its end how sure it is of every weight."""

    def step(self, step: int) -> None:
        """Look at the weights (and gradients) that optimizer step number `step` left."""
        ...

    def result(self) -> Std:
        """Return float32 arrays of the mask's names and shapes, 0 for removed weights; the training is over."""
        ...


class Swag:
    """Standard deviation of the iterates over the last `window` of the steps, every step of them.

    SWAG-Diagonal (Maddox et al. 2019, arXiv 1902.02476) as Welford's recurrence: a mean of squares less
    a squared mean loses all digits where a weight moves by a thousandth of itself. As in the paper, the sum of
    squares is divided by the number of iterates n, not by n − 1; the factor is the same for every weight.

    A survivor without any gradient in the window, or that no step moved, gets the standard deviation of the prior:
    that it stood still (or only decayed) says that the data do not determine it, not that it is certain. Beyond that
    the spread is taken as it is: a weight with a gradient that is small, but not 0, wanders little and looks certain,
    which `adam` and `fisher` do not mistake.

    Raises:
        BadValue: fewer than two steps in the window.
    """

    def __init__(self, training: Training) -> None:
        budget = training.job.budget
        steps = budget.stop - budget.start
        count = round(training.window * steps)
        if count < 2:
            raise BadValue(
                f"std 'swag' needs 2 steps or more in its window; std_window {training.window:g} of {steps:,} steps "
                f"gives {count}: train longer or widen std_window"
            )
        self._training = training
        self._first = budget.stop - count + 1
        self._parameters: list[torch.Tensor] = list(training.weights.values())
        self._count = 0
        self._mean, self._squares, self._pull = (
            [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in self._now()]
            for _ in range(3)
        )

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Take the iterate in, if `step` is in the window."""
        if step < self._first:
            return
        self._count += 1
        n = self._count
        delta = torch._foreach_sub(self._now(), self._mean)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(self._mean, delta, alpha=1 / n)  # pyright: ignore[reportPrivateImportUsage]
        # (w − old mean)(w − new mean) = (w − old mean)² (n − 1) / n, which cannot be negative.
        torch._foreach_addcmul_(self._squares, delta, delta, value=(n - 1) / n)  # pyright: ignore[reportPrivateImportUsage]
        pulled = [
            (pull, halves(_dense(p.grad)))
            for pull, p in zip(self._pull, self._parameters, strict=True)
            if p.grad is not None
        ]
        if pulled:
            gradients = [gradient for _, gradient in pulled]
            torch._foreach_addcmul_([pull for pull, _ in pulled], gradients, gradients)  # pyright: ignore[reportPrivateImportUsage]

    def _now(self) -> list[torch.Tensor]:
        return [halves(parameter.detach()) for parameter in self._parameters]

    def result(self) -> Std:
        """Return the square root of the diagonal of the iterates' covariance."""
        std = {}
        for name, squares, pull in zip(self._training.weights, self._squares, self._pull, strict=True):
            undetermined = (squares == 0) | (pull == 0)
            spread = (squares / self._count).sqrt().masked_fill(undetermined, PRIOR_PRECISION**-0.5)
            std[name] = _together(spread, self._training.weights[name])
        return self._training.masked(std)


class Adam:
    """1 / √(N v̂ + λ) from Adam's second moment: no extra work in the loop, and none after it.

    v̂ is the bias-corrected running mean of squared mini-batch gradients, N the number of training examples and λ the
    prior's precision: the posterior of Vadam (Khan et al. 2018, arXiv 1806.04854). v̂ is smaller than the
    Fisher diagonal by up to the batch size; neither that factor nor N changes the ranking while λ is small beside
    N v̂. With `adam` (not `adamw`) v̂ includes the gradient of the L2 penalty.
    """

    def __init__(self, training: Training) -> None:
        self._training = training

    def step(self, step: int) -> None:
        """Do nothing: the optimizer keeps the books."""

    def result(self) -> Std:
        """Read the optimizer's state."""
        examples = _count(self._training.part)
        beta = {id(p): group["betas"][1] for group in self._training.optimizer.param_groups for p in group["params"]}
        std = {}
        for name, parameter in self._training.weights.items():
            state = self._training.optimizer.state.get(parameter, {})
            # A parameter that no loss depended on has no state.
            moment = halves(state.get("exp_avg_sq", torch.zeros_like(parameter))).double()
            correction = 1 - beta[id(parameter)] ** float(state["step"]) if state else 1.0
            std[name] = _together(_of_precision(examples * moment / correction), parameter)
        return self._training.masked(std)


class Fisher:
    """1 / √(N F + λ) with the empirical Fisher diagonal F at the trained weights.

    F is the mean of squared gradients of single examples' losses, N the number of training examples and λ the prior's
    precision: a diagonal Laplace approximation (MacKay 1992; Ritter et al. 2018). |w| / std is then √(2 N) times the
    root of the saliency of optimal brain damage with F for the Hessian (LeCun et al. 1990; Theis et al. 2018,
    arXiv 1801.05787). A weight whose gradient is 0 for every example has F = 0 and the prior's standard deviation.

    Looks at no more than `examples`, the first ones in an order that follows from the job's seed, in evaluation mode,
    in the model's own precision and without augmentation; a `DataLoader` is iterated as given.

    Raises:
        BadValue: a loss that cannot be computed for a single example.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        if isinstance(training.part, Loader):
            # Said before anything is trained, not after it.
            require_divisible(next(training.part.batches(training.job.seed)), "std 'fisher'", "'swag'")

    def step(self, step: int) -> None:
        """Do nothing: only the trained weights matter."""

    def result(self) -> Std:
        """Average squared gradients over examples."""
        training = self._training
        weights = training.weights
        network = NetworkLoss(training.model.eval(), weights, training.loss, asker="std 'fisher'", instead="'swag'")
        found = mean_squares(network, _examples(training, chunk_size(weights)))
        examples = _count(training.part)
        std = {name: _of_precision(examples * halves(value)) for name, value in found.items()}
        return training.masked({name: _together(value, weights[name]) for name, value in std.items()})


ESTIMATORS: dict[str, Callable[[Training], Estimator]] = {"swag": Swag, "adam": Adam, "fisher": Fisher}


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _of_precision(curvature: torch.Tensor) -> torch.Tensor:
    return (curvature + PRIOR_PRECISION).rsqrt()


def _together(std: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of a complex weight from those of its halves: the root of both variances' sum."""
    return std.norm(dim=-1) if weight.is_complex() else std


def _count(part: Part) -> int:
    """Return the number of training examples."""
    if isinstance(part, Tensors):
        return len(part)
    dataset: Any = part.loader.dataset
    return len(dataset) if hasattr(dataset, "__len__") else len(part) * (part.loader.batch_size or 1)


def _examples(training: Training, chunk: int) -> Iterator[Batch]:
    """Yield the first examples of a seeded order, on the device, in batches of `chunk` or fewer."""
    left = training.examples
    for batch in _in_seeded_order(training.part, training.job.seed, training.examples):
        count = min(left, size(batch))
        looked_at = rows(batch, 0, count) if is_divisible(batch) else batch
        yield from (move(piece, training.device) for piece in chunks(looked_at, chunk))
        left -= count
        if not left:
            return


def _in_seeded_order(part: Part, seed: int, most: int) -> Iterator[Batch]:
    if isinstance(part, Loader):
        yield from part.batches(seed)
    else:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:most]
        yield part.gathered(order.to(part.device))
