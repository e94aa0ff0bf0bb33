"""What is reported of a training, and the weights that it is reported of: those that a ticket delivers.

    measure_at final        the numbers and the weights of the last step
    measure_at early-stop   those of the evaluation with the smallest validation loss

The next mask is drawn from the last step either way, and that is where fine-tuning goes on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lottery.results.levels import EarlyStop
from lottery.results.winning import early_stop, tested
from lottery.settings.config import SearchConfig
from pruning.errors import BadValue
from pruning.jobs import BEST, Params, Trained, Trainer

EARLY_STOP = "early-stop"


@dataclass(frozen=True)
class TrainingReport:
    """What is reported of one training.

    Attributes:
        trained: the training; diverged where what is reported is no number.
        validation: the deciding metric on validation data.
        test: the same on test data.
        final: both at the end of training.
        early_stop: the evaluation with the smallest validation loss.
        weights: that these are the numbers of.
        delivered: which those are: `at` (`final` or `early-stop`) and `step`; None of a training that diverged.
    """

    trained: Trained
    validation: float | None
    test: float | None
    final: Mapping[str, float | None]
    early_stop: EarlyStop | None
    weights: Params
    delivered: Mapping[str, Any] | None


def reported(config: SearchConfig, trainer: Trainer) -> frozenset[str]:
    """Return what a trainer is asked for so that what is reported can be handed back.

    Raises:
        BadValue: it does not keep the weights of the early-stop step.
    """
    if config.measure_at != EARLY_STOP:
        return frozenset()
    if BEST not in trainer.provides:
        raise BadValue(
            f"trainer {config.trainer!r} does not keep the weights at the early-stop step: use measure_at 'final'"
        )
    return frozenset({BEST})


def report(trained: Trained, measure_at: str) -> TrainingReport:
    """Return what is reported of a training, and whose numbers those are.

    A metric that is not finite there ends the training as diverged, and the reason says that it was the metric.
    """
    last, stopped = trained.history[-1] if trained.history else None, early_stop(trained.history)
    final = {"validation": last.validation if last else None, "test": tested(last) if last else None}
    at, step, validation, test = "final", last.step if last else None, final["validation"], final["test"]
    weights = trained.params
    if trained.diverged is None and last is not None and tested(last) != last.test:
        warnings.warn(
            f"the loss on the test part is not a number at step {last.step} (are there NaN in its inputs?): no test "
            "metric is reported",
            stacklevel=2,
        )
    if measure_at == EARLY_STOP and stopped is not None and trained.best is not None:
        at, step, validation, test = EARLY_STOP, stopped.step, stopped.validation, stopped.test
        weights = trained.best
    if trained.diverged is None and validation is not None and not math.isfinite(validation):
        reason = f"the metric is not finite on the validation part at step {step}: {validation}"
        trained = replace(trained, diverged=reason)
    delivered = {"at": at, "step": step} if trained.diverged is None else None
    return TrainingReport(trained, validation, test, final, stopped, weights, delivered)
