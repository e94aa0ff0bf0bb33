"""What passes between the search, a trainer and a criterion: jobs in, trained weights out.

A trainer turns a `Job` into a `Trained`; a criterion looks at both and scores weights. Neither knows of levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pruning.mask import Mask

Params = Mapping[str, NDArray[Any]]

BEST = "best"
"""The need for the weights at the evaluation with the smallest validation loss (`Trained.best`)."""


@dataclass(frozen=True)
class Question:
    """A question to a training, asked after each of its evaluations until the answer is yes for the first time.

    Attributes:
        look: returns the part of the training so far that the answer depends on (weights, history, snapshots, mask).
        answer: yes or no, from the last looks, the newest last.
        looks: how many it is given at most.
        ends: whether training ends at the first yes, or goes on and keeps a copy of the weights.
    """

    look: Callable[[Trained], Any]
    answer: Callable[[Sequence[Any]], bool]
    looks: int = 1
    ends: bool = True


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        step: of the first evaluation at which the answer was yes; None where it never was.
        ended: whether that ended the training before the last step of its budget.
    """

    step: int | None
    ended: bool


@dataclass(frozen=True)
class Budget:
    """How long to train, in the trainer's own unit (optimizer steps, generations).

    Attributes:
        start: the step at which the schedules begin: k after a rewind to step k.
        stop: the step at which training ends.
        snapshots: steps (from `start` to `stop`) at which to keep a copy of the weights.
        until: a question that is asked after every evaluation, and may end the training. No part of a budget's
            identity.
    """

    start: int
    stop: int
    snapshots: tuple[int, ...] = ()
    until: Question | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Job:
    """One network to train.

    Attributes:
        params: parameters and buffers at the rewind point, by dotted name, on the host.
        mask: which weights take part; the others are 0 from the first step to the last.
        seed: the seed of everything random in this training (data order, dropout, perturbations).
        budget: from which step to which.
    """

    params: Params
    mask: Mask
    seed: int
    budget: Budget


@dataclass(frozen=True)
class Evaluation:
    """One point of a history. Metrics are fractions for accuracies; a part that does not exist gives None."""

    step: int
    train_loss: float | None
    validation_loss: float | None
    validation: float | None
    test_loss: float | None
    test: float | None


@dataclass(frozen=True)
class Trained:
    """What a trainer gives back for one job: exactly what `needs` asked for, and the history.

    Attributes:
        params: trained parameters and buffers, on the host; removed weights are exactly 0.
        history: evaluations in the order of their steps, the last one at the end of training.
        snapshots: step to parameters and buffers, for the steps that the budget named, and for the step of an answer
            at which training did not end.
        std: per-weight standard deviation (need `std`).
        evidence: arrays of a probe at the weights that are scored, by need (`gradients`, …) and tensor name.
        mask: the mask at the end of a training whose mask moved, or None where it is the job's.
        best: parameters and buffers at the evaluation with the smallest validation loss (need `best`; a trainer may
            keep them unasked).
        facts: further entries of its record, as plain JSON.
        answer: to the budget's question; None where it asks none.
        diverged: why this training failed, or None.
    """

    params: Params
    history: Sequence[Evaluation]
    snapshots: Mapping[int, Params] = field(default_factory=dict)
    std: Mapping[str, NDArray[Any]] | None = None
    evidence: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    mask: Mask | None = None
    best: Params | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    diverged: str | None = None


class Trainer(Protocol):
    """Turns jobs into trained networks. May run the jobs stacked; yields results in the order of the jobs."""

    @property
    def provides(self) -> frozenset[str]:
        """What a criterion may ask for beside the trained weights."""
        ...

    def train(self, jobs: Sequence[Job], needs: frozenset[str]) -> Iterable[Trained]:
        """Train every job."""
        ...


@runtime_checkable
class Stacks(Protocol):
    """A trainer that trains several jobs as one stack, and saves nothing until the whole stack is done.

    Rounding depends on which jobs share a stack. A level that was interrupted is therefore trained again as a whole.
    """

    def together(self, jobs: Sequence[Job], needs: frozenset[str]) -> bool:
        """Say whether the bits of one of these jobs depend on which others it is trained with."""
        ...


@runtime_checkable
class Calibrated(Protocol):
    """A trainer that chooses how to compute by costs that were measured on a machine: rounding depends on them."""

    @property
    def calibration(self) -> Mapping[str, Any] | None:
        """The costs, as plain JSON; None where nothing is chosen."""
        ...

    def calibrated(self, calibration: Mapping[str, Any] | None) -> Trainer:
        """Return a trainer that chooses as one with this calibration did.

        Raises:
            BadValue: what is no calibration of this kind of trainer.
        """
        ...


class Prober(Protocol):
    """Looks at a network on data, without training it for good: gradients, curvature, activations, …"""

    @property
    def provides(self) -> frozenset[str]:
        """What a criterion may ask for."""
        ...

    def look(self, job: Job, density: float, needs: frozenset[str]) -> Mapping[str, Mapping[str, NDArray[Any]]]:
        """Return one array for each tensor of the mask, for each need.

        Args:
            job: the weights to look at, their mask, and the seed of everything random.
            density: the density of the mask that is about to be drawn from what is seen.
            needs: the names of the arrays to compute.
        """
        ...


def all_finite(params: Params) -> bool:
    """Say whether every floating-point array is free of NaN and infinities.

    >>> all_finite({"w": np.ones(2)}), all_finite({"w": np.array([1.0, np.nan])})
    (True, False)
    """
    return all(bool(np.isfinite(a).all()) for a in params.values() if a.dtype.kind not in "biu")


def stays_finite(params: Params, start: Params) -> bool:
    """Say whether no value became NaN or infinite that was finite in `start`.

    A buffer may hold infinities all along (an attention mask, the extremes of nothing yet). An array that has another
    shape than at the start, or was not there, is a buffer that follows the data, and is not judged.

    >>> before = {"mask": np.array([0.0, -np.inf]), "w": np.zeros(2)}
    >>> stays_finite(before, before), stays_finite({**before, "w": np.array([0.0, np.nan])}, before)
    (True, False)
    """
    pairs = [(array, start[name]) for name, array in params.items() if name in start and array.dtype.kind not in "biu"]
    return all(bool((np.isfinite(now) | ~np.isfinite(was)).all()) for now, was in pairs if now.shape == was.shape)
