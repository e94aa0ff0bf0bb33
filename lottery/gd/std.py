"""How sure gradient descent is of each weight: estimators of a standard deviation, by name.

`adam` and `fisher` say how far a weight could move before the data object (curvature at the end of training), `swag`
how far the optimizer did move it. They agree on a weight that the data say nothing about (a pixel that is always
black, a unit that nothing reads): it gets the standard deviation of the prior, which is wide. A large standard
deviation makes a small signal-to-noise ratio.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map_only

from lottery.data.parts import Loader, Part, Tensors, seeded, split_batch
from lottery.gd.batches import Batch, move, size
from lottery.objective import BatchFunction, call
from pruning.errors import BadValue
from pruning.jobs import Job

Std = dict[str, NDArray[np.float32]]

# A prior so wide that it decides nothing about a weight with any curvature, and keeps one with none finite.
PRIOR_PRECISION = 1e-8

# The optimizers of `lottery.gd.optimizers` that keep a running mean of squared gradients.
SECOND_MOMENT = ("adam", "adamw")

# Values that the gradients of one chunk of examples may take together: 256 MiB of float32.
_CHUNK_VALUES = 2**26
_CHUNK_EXAMPLES = 64


@dataclass(frozen=True)
class Training:
    """What an estimator may look at: one training, from before its first step.

    Attributes:
        model: on the device; its weights change under the estimator.
        optimizer: of that model.
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
            [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in self._parameters]
            for _ in range(3)
        )

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Take the iterate in, if `step` is in the window."""
        if step < self._first:
            return
        self._count += 1
        n = self._count
        delta = torch._foreach_sub(self._parameters, self._mean)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(self._mean, delta, alpha=1 / n)  # pyright: ignore[reportPrivateImportUsage]
        # (w − old mean)(w − new mean) = (w − old mean)² (n − 1) / n, which cannot be negative.
        torch._foreach_addcmul_(self._squares, delta, delta, value=(n - 1) / n)  # pyright: ignore[reportPrivateImportUsage]
        pulled = [(pull, p.grad) for pull, p in zip(self._pull, self._parameters, strict=True) if p.grad is not None]
        if pulled:
            gradients = [gradient for _, gradient in pulled]
            torch._foreach_addcmul_([pull for pull, _ in pulled], gradients, gradients)  # pyright: ignore[reportPrivateImportUsage]

    def result(self) -> Std:
        """Return the square root of the diagonal of the iterates' covariance."""
        std = {}
        for name, squares, pull in zip(self._training.weights, self._squares, self._pull, strict=True):
            undetermined = (squares == 0) | (pull == 0)
            std[name] = (squares / self._count).sqrt().masked_fill(undetermined, PRIOR_PRECISION**-0.5)
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
            moment = state.get("exp_avg_sq", torch.zeros_like(parameter)).to(torch.float64)
            correction = 1 - beta[id(parameter)] ** float(state["step"]) if state else 1.0
            std[name] = _of_precision(examples * moment / correction)
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

    def step(self, step: int) -> None:
        """Do nothing: only the trained weights matter."""

    def result(self) -> Std:
        """Average squared gradients over examples."""
        training = self._training
        training.model.eval()
        weights = training.weights
        by_transform: _Squares = _by_vmap(training)
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
        seen, trusted = 0, None
        chunk = max(1, min(_CHUNK_EXAMPLES, _CHUNK_VALUES // sum(p.numel() for p in weights.values())))
        with _differentiable(training.model):
            for batch in _examples(training, chunk):
                if trusted is None:
                    trusted = _agrees(by_transform, training, batch)
                squares = _attempt(by_transform, batch) if trusted else None
                for name, value in (squares or _by_loop(training, batch)).items():
                    total[name] += value
                seen += size(batch)
        examples = _count(training.part)
        return training.masked({name: _of_precision(examples * value / seen) for name, value in total.items()})


ESTIMATORS: dict[str, Callable[[Training], Estimator]] = {"swag": Swag, "adam": Adam, "fisher": Fisher}

_Squares = Callable[[Batch], dict[str, torch.Tensor]]


def _of_precision(curvature: torch.Tensor) -> torch.Tensor:
    return (curvature + PRIOR_PRECISION).rsqrt()


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
        for first in range(0, count, chunk):
            yield move(_rows(batch, first, min(first + chunk, count)), training.device)
        left -= count
        if not left:
            return


def _in_seeded_order(part: Part, seed: int, most: int) -> Iterator[Batch]:
    if isinstance(part, Loader):
        with seeded(part.loader, seed):
            yield from (split_batch(batch) for batch in part.loader)
    else:
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:most]
        chosen = part.take(order.to(part.inputs.device))
        yield chosen.inputs, chosen.targets


def _rows(batch: Any, first: int, last: int) -> Any:
    return tree_map_only(torch.Tensor, lambda tensor: tensor[first:last], batch)


class _Loss(nn.Module):
    """A model with its loss behind it, so that `functional_call` reaches the model's weights."""

    def __init__(self, model: nn.Module, loss: BatchFunction) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: Any, targets: Any) -> torch.Tensor:
        return self.loss(call(self.model, inputs), targets)


def _by_vmap(training: Training) -> _Squares:
    """Return a function of a batch: the sum over its examples of squared gradients, by a transform of all at once."""
    loss = _Loss(training.model, training.loss)
    weights = {f"model.{name}": p.detach() for name, p in training.weights.items()}

    def single(weights: Mapping[str, torch.Tensor], inputs: Any, targets: Any) -> torch.Tensor:
        alone = tree_map_only(torch.Tensor, lambda tensor: tensor[None], (inputs, targets))
        return functional_call(loss, dict(weights), alone).reshape(())

    gradients = vmap(grad(single), in_dims=(None, 0, 0), randomness="different")

    def squares(batch: Batch) -> dict[str, torch.Tensor]:
        # The outer switch keeps autograd from recording the other parameters; `grad` looks only at its own.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            found = gradients(weights, *batch)
        return {name.removeprefix("model."): g.to(torch.float64).square().sum(0) for name, g in found.items()}

    return squares


def _by_loop(training: Training, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the sum over the batch's examples of squared gradients, one example after the other."""
    weights = training.weights
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
    for position in range(size(batch)):
        inputs, targets = _rows(batch, position, position + 1)
        try:
            loss = training.loss(call(training.model, inputs), targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        except Exception as error:  # a caller's model or loss may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise BadValue(
                f"std 'fisher' needs the loss of single examples, which fails ({reason}); use 'swag'"
            ) from error
        for value, gradient in zip(total.values(), gradients, strict=True):
            if gradient is not None:
                value += gradient.to(torch.float64).square()
    return total


def _agrees(transform: _Squares, training: Training, batch: Batch) -> bool:
    """Say whether the transform gives what autograd gives for the first example.

    Control flow that looks at values, modules that hold on to their weights and unusual batches break it, some of
    them silently.
    """
    first = _rows(batch, 0, 1)
    expected = _by_loop(training, first)
    got = _attempt(transform, first)
    # Another order of summation may change digits where gradients cancel; what is wrong is wrong altogether.
    return got is not None and all(
        float((got[name] - value).abs().sum()) <= 0.1 * float(value.sum()) for name, value in expected.items()
    )


def _attempt(transform: _Squares, batch: Batch) -> dict[str, torch.Tensor] | None:
    """Return the transform's answer, or None where it fails: whatever was raised, autograd can do without it."""
    try:
        return transform(batch)
    except Exception:  # torch.func refuses in many ways; the loop over examples then says what is wrong, if anything
        return None


@contextlib.contextmanager
def _differentiable(model: nn.Module) -> Iterator[None]:
    """Switch off cuDNN where the model is recurrent: it has no backward pass in evaluation mode."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with torch.backends.cudnn.flags(enabled=False) if recurrent else contextlib.nullcontext():
        yield
