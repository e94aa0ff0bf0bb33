"""The estimator of standard deviations that watches a training."""

from __future__ import annotations

from dataclasses import replace

from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.network import JobNetwork
from lottery.trainers.gd.optimizers.given import Optimizers
from lottery.trainers.gd.std import ESTIMATORS, Estimator, Training
from pruning.jobs import Job
from pruning.mask import Mask


def estimator_for(frame: GDFrame, job: Job, network: JobNetwork, optimizers: Optimizers) -> Estimator:
    """Return the estimator that the configuration names, for a training that is about to begin.

    Raises:
        BadValue: a training of which it could not say anything.
    """
    training = Training(
        model=network.model,
        optimizer=optimizers.each[0],
        # A removed weight may come in later: what is kept of the estimates is said by the mask at the end.
        job=replace(job, mask=Mask.dense(job.mask.shapes())),
        part=frame.parts.train,
        loss=frame.objective.loss,
        device=frame.device,
        window=frame.config.std_window,
        examples=frame.config.std_examples,
    )
    return ESTIMATORS[frame.config.std](training)
