"""Scikit-learn's scorers, by name, on the outputs of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lottery.networks.objectives.metric import Metric
from pruning.errors import DataError, unknown


def scorer_metric(name: str, ignored: int) -> Metric:
    """Return one of scikit-learn's scorers as a metric: higher is better, errors are negative (`neg_…`).

    Args:
        name: as `sklearn.metrics.get_scorer_names()` has it.
        ignored: the label that does not count.

    Raises:
        UnknownName: a name that scikit-learn does not know.

    >>> scorer_metric("accuracy", -100).is_fraction, scorer_metric("neg_log_loss", -100).is_fraction
    (True, False)
    """
    from sklearn.metrics import get_scorer_names

    if name not in get_scorer_names():
        raise unknown("metric", name, get_scorer_names())
    return Metric(name, Scorer(name, ignored), is_fraction=name == "accuracy")


@dataclass(frozen=True)
class Scorer:
    """A metric that asks scikit-learn.

    The outputs are read as what the labels are of. Integers: scores of classes along axis 1; the largest is the
    prediction, the softmax the probabilities. Booleans, or integers beside a single output: a logit, positive for
    true. Floats: the predictions themselves.

    Attributes:
        name: the name of the scorer.
        ignored: the label that does not count.
    """

    name: str
    ignored: int

    def __call__(self, outputs: Any, targets: Any) -> float:
        """Return the score of these outputs.

        >>> Scorer("f1", -100)(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 0, 0]))
        0.6666666666666666
        """
        from sklearn.metrics import get_scorer

        scores, labels = (_array(value) for value in (outputs, targets))
        if labels.dtype.kind == "f":
            if scores.size != labels.size:
                raise DataError(f"metric {self.name!r}: outputs of shape {scores.shape}, targets {labels.shape}")
            return float(get_scorer(self.name)(_predicting(scores.reshape(labels.shape)), scores, labels))
        scores, labels = _by_label(scores, labels)
        counts = labels != self.ignored
        scores, labels = scores[counts], labels[counts]
        return float(get_scorer(self.name)(_classifying(scores, labels), scores, labels))


def _array(value: Any) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if not hasattr(value, "shape"):
        raise DataError(
            f"a metric by name reads one tensor of outputs and one of labels, not {type(value).__name__}; give a "
            "function of (outputs, targets)"
        )
    return np.asarray(value)


def _by_label(scores: NDArray[Any], labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return one row of scores for each label: [M] logits or [M, C] scores, and [M] labels."""
    if scores.size == labels.size:
        return scores.reshape(-1), labels.reshape(-1)
    rows = np.moveaxis(scores, 1, -1) if scores.ndim > 1 else scores
    if rows.shape[:-1] != labels.shape:
        raise DataError(f"outputs of shape {scores.shape} and labels of shape {labels.shape} do not belong together")
    return rows.reshape(-1, rows.shape[-1]), labels.reshape(-1)


def _predicting(predictions: NDArray[Any]) -> Any:
    from sklearn.base import BaseEstimator, RegressorMixin

    class Predictions(RegressorMixin, BaseEstimator):
        """A regressor that has already predicted."""

        fitted_ = True

        def predict(self, _: Any) -> NDArray[Any]:
            return predictions

    return Predictions()


def _classifying(scores: NDArray[Any], labels: NDArray[Any]) -> Any:
    from sklearn.base import BaseEstimator, ClassifierMixin

    single = scores.ndim == 1
    wide = scores.astype(np.float64)
    # A single logit is the difference between the second class and the first.
    both = np.stack([np.zeros_like(wide), wide], axis=1) if single else wide
    classes = np.arange(both.shape[1]) if labels.dtype.kind != "b" else np.array([False, True])

    class Outputs(ClassifierMixin, BaseEstimator):
        """A classifier that has already answered."""

        classes_ = classes

        def predict(self, _: Any) -> NDArray[Any]:
            return classes[both.argmax(1)]

        def predict_proba(self, _: Any) -> NDArray[Any]:
            powers = np.exp(both - both.max(1, keepdims=True))
            return powers / powers.sum(1, keepdims=True)

        def decision_function(self, _: Any) -> NDArray[Any]:
            return both[:, 1] - both[:, 0] if len(classes) == 2 else both

    return Outputs()
