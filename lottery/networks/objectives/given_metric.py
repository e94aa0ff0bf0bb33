"""A metric as callers give it, made a `Metric`."""

from __future__ import annotations

from lottery.networks.objectives.class_losses import IGNORED, class_loss
from lottery.networks.objectives.metric import BatchFunction, GivenMetric, Metric, collects
from lottery.networks.objectives.scorers import scorer_metric
from pruning.errors import BadValue


def as_metric(metric: GivenMetric, loss: BatchFunction) -> Metric:
    """Return a metric as callers give it as a `Metric`.

    Args:
        metric: the caller's metric.
        loss: says which label does not count, for a scorer by name.

    Raises:
        BadValue: none of the things that a metric can be.
        UnknownName: a name that scikit-learn does not know.

    >>> as_metric(max, loss=min).name, as_metric("accuracy", loss=min).is_fraction
    ('max', True)
    """
    if isinstance(metric, Metric):
        if not collects(metric.function) and not callable(metric.function):
            raise BadValue(f"metric {metric.name!r}: its function must be callable, not {metric.function!r}")
        return metric
    if isinstance(metric, str):
        how = class_loss(loss)
        return scorer_metric(metric, IGNORED if how is None else how.ignored)
    if isinstance(metric, type):
        raise BadValue(f"metric {metric.__name__} is a class: give an instance of it, {metric.__name__}(…)")
    if collects(metric):
        # torchmetrics says so where it knows; a name of its own is better than none.
        return Metric(type(metric).__name__, metric, getattr(metric, "higher_is_better", None) is not False)
    if not callable(metric):
        raise BadValue(
            "metric must be a function of (outputs, targets), an object with update, compute and reset, a Metric, or "
            f"the name of one of scikit-learn's scorers, not {metric!r}"
        )
    return Metric(getattr(metric, "__name__", "metric"), metric)
