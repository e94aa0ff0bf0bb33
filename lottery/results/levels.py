"""What a search found: replicates, levels, the winning ticket. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning.jobs import Evaluation


@dataclass(frozen=True)
class EarlyStop:
    """The evaluation with the smallest validation loss, found after training (Frankle & Carbin 2019, section 2)."""

    step: int
    validation: float
    test: float | None


@dataclass(frozen=True)
class Replicate:
    """One trained network of one level.

    Attributes:
        seed: which replicate.
        level: which level.
        validation: the deciding metric on validation data.
        test: the same on test data, or None without a test part.
        steps: optimizer steps (or generations) trained.
        final_validation: validation metric at the end of training.
        final_test: test metric at the end of training.
        early_stop: the measurement at the early-stop step.
        diverged: why the training failed, or None.
        kept: surviving weights.
        prunable: all prunable weights.
        layers: density of each tensor.
        path: its ticket directory.
        history: all evaluations.
    """

    seed: int
    level: int
    validation: float
    test: float | None
    steps: int
    final_validation: float
    final_test: float | None
    early_stop: EarlyStop | None
    diverged: str | None
    kept: int
    prunable: int
    layers: Mapping[str, float]
    path: Path
    history: Sequence[Evaluation]

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that survive."""
        return self.kept / self.prunable


@dataclass(frozen=True)
class Level:
    """All replicates of one level; statistics are over those that did not diverge."""

    level: int
    replicates: tuple[Replicate, ...]

    @property
    def alive(self) -> tuple[Replicate, ...]:
        """The replicates that did not diverge."""
        return tuple(replicate for replicate in self.replicates if replicate.diverged is None)

    @property
    def kept(self) -> int | float:
        """Surviving weights: their number where all replicates keep as many, otherwise the mean."""
        fewest, most = self.kept_range
        return fewest if fewest == most else mean([replicate.kept for replicate in self._counted])

    @property
    def kept_range(self) -> tuple[int, int]:
        """The fewest and the most surviving weights of a replicate: a pattern may round them differently."""
        kept = [replicate.kept for replicate in self._counted]
        return min(kept), max(kept)

    @property
    def prunable(self) -> int:
        """All prunable weights."""
        return self.replicates[0].prunable

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that survive, in the mean."""
        return self.kept / self.prunable

    @property
    def layers(self) -> dict[str, float]:
        """Mean density of each tensor."""
        names = self.replicates[0].layers
        return {name: mean([replicate.layers[name] for replicate in self._counted]) for name in names}

    @property
    def _counted(self) -> tuple[Replicate, ...]:
        """The replicates that did not diverge, or all of them where every one did."""
        return self.alive or self.replicates

    @property
    def validation(self) -> float:
        """Mean validation metric; NaN where every replicate diverged."""
        return mean([replicate.validation for replicate in self.alive])

    @property
    def test(self) -> float | None:
        """Mean test metric, or None without a test part."""
        values = [replicate.test for replicate in self.alive if replicate.test is not None]
        return mean(values) if values else None


@dataclass(frozen=True)
class Tolerance:
    """How much worse than dense still counts as matching, and why."""

    value: float
    rule: str


@dataclass(frozen=True)
class Winner:
    """The sparsest matching level, and the replicate of it that is best on validation data."""

    level: int
    seed: int


@dataclass(frozen=True)
class Search:
    """Everything a search found.

    Attributes:
        run: the run directory.
        levels: level 0 first.
        winner: the winning ticket, or None.
        reason: why there is none.
        stopped: why the search ended before its last level, or None.
        tolerance: the tolerance by which levels were called matching.
        metric: name of the metric.
        higher_is_better: its direction.
        is_fraction: whether it is a fraction of examples (an accuracy).
        test_examples: size of the test part, where known.
        seconds: time spent on its levels (of a level that was interrupted, by the attempt that finished it).
        device: where it trained.
        config: the resolved configuration.
        coverage: which share of the network its masks cover, as it is stored; None of a run that does not say.
    """

    run: Path
    levels: tuple[Level, ...]
    winner: Winner | None
    reason: str | None
    stopped: str | None
    tolerance: Tolerance
    metric: str
    higher_is_better: bool
    is_fraction: bool
    test_examples: int | None
    seconds: float
    device: str
    config: Mapping[str, Any]
    coverage: Mapping[str, Any] | None = None

    @property
    def winning_replicate(self) -> Replicate | None:
        """The replicate that the winning ticket is."""
        if self.winner is None:
            return None
        level = next(level for level in self.levels if level.level == self.winner.level)
        return next(replicate for replicate in level.replicates if replicate.seed == self.winner.seed)


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def replicated(config: Mapping[str, Any], dense: Level) -> dict[str, Any]:
    """Return a search's configuration with the replicates that there are, whichever calls made them."""
    seeds = [replicate.seed for replicate in dense.replicates]
    return {**config, "seed": min(seeds), "replicates": len(seeds)}
