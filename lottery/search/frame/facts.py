"""The facts of a search: the part of a ticket's record that all its tickets share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lottery.networks.objectives.metric import Measure
from lottery.search.frame.coverage import Coverage


@dataclass(frozen=True)
class Facts:
    """How the tickets of a search were found, as each of them records it.

    Attributes:
        model: its name.
        data: its name.
        train_examples: how many; None where that is not known without reading them.
        validation_examples: how many examples or episodes choices are made on; None where the search does not use it.
        framework: the framework of the tensors: `torch` or `jax`.
        layout: the layout of the tensors' axes.
        given: model and data, where the caller named them.
        source: other facts of the model.
        trainer: its name.
        criterion: its name.
        scope: its name.
        rewind: the rewind point, as it was asked for.
        measure_at: `final` or `early-stop`.
        metric: the metric's name, and how its values are read.
        config: every setting of the search and of its trainer that is not what it would be anyway.
        coverage: which part of the network the masks cover.
    """

    model: str
    data: str
    train_examples: int | None
    validation_examples: int | None
    framework: str
    layout: str
    given: Mapping[str, str]
    source: Mapping[str, Any]
    trainer: str
    criterion: str
    scope: str
    rewind: str
    measure_at: str
    metric: Measure
    config: Mapping[str, Any]
    coverage: Coverage

    def as_json(self) -> dict[str, Any]:
        """Return them as a ticket's record holds them."""
        return {
            "model": self.model,
            "data": self.data,
            "train_examples": self.train_examples,
            "validation_examples": self.validation_examples,
            "framework": self.framework,
            "layout": self.layout,
            "given": dict(self.given),
            **self.source,
            "trainer": self.trainer,
            "criterion": self.criterion,
            "scope": self.scope,
            "rewind": self.rewind,
            "measure_at": self.measure_at,
            "metric": {
                "name": self.metric.name,
                "higher_is_better": self.metric.higher_is_better,
                "is_fraction": self.metric.is_fraction,
            },
            "config": dict(self.config),
            "coverage": self.coverage.as_json(),
        }
