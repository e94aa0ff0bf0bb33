"""Many steps of one training at a time, by its compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from lottery.data.batches import training_order
from lottery.data.part import Tensors
from lottery.trainers.gd.chain.chain import Chain
from lottery.trainers.gd.chain.paths import Paths
from lottery.trainers.gd.chain.program import Program
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.loop.learning import Losses
from lottery.trainers.gd.loop.network import JobNetwork
from lottery.trainers.gd.optimizers.learning_rate import learning_rate
from pruning.jobs import Budget, Job

# Steps that are taken at once: Ctrl-C is heard, and a progress bar moves, after that many seconds.
_SECONDS = 0.1
_MOST = 4096


@dataclass(frozen=True)
class Stride:
    """Steps that follow one another, with nothing due between them.

    Attributes:
        order: which examples they see, int64 [steps × batch].
        rates: the learning rate of each.
    """

    order: torch.Tensor
    rates: list[float]


@dataclass(frozen=True)
class ChainLearner:
    """Takes the steps of one training in strides.

    Attributes:
        program: the compiled steps.
        paths: which way the layers take.
        part: the training examples.
        batch: examples of a step.
        rate: the learning rate of a step, counted from 0.
        threads: how many may work at once.
        mover: none: masks that move are not for compiled steps.
    """

    program: Program
    paths: Paths
    part: Tensors
    batch: int
    rate: Callable[[int], float]
    threads: int
    mover: None = None

    def strides(self, budget: Budget, seed: int, due: Callable[[int], bool]) -> Iterator[tuple[int, Stride]]:
        """Yield strides, each with the number of its last step; none goes beyond one that is due."""
        most = max(1, min(_MOST, int(_SECONDS / max(self.paths.seconds, 1e-6))))
        rows: list[torch.Tensor] = []
        orders = training_order(self.part, self.batch, seed, budget.start, budget.stop)
        for step, row in enumerate(orders, start=budget.start + 1):
            rows.append(row)
            # The first step stands alone: somebody may wait to see that training has begun.
            if len(rows) == most or step == budget.start + 1 or due(step) or step == budget.stop:
                first = step - len(rows)
                yield step, Stride(torch.cat(rows), [self.rate(number) for number in range(first, step)])
                rows = []

    def take(self, step: int, stride: Stride) -> Losses:
        """Take a stride's steps, and leave the weights after them in the model."""
        total = self.program.steps(self.part.inputs, self.part.targets, stride.order, stride.rates, self.threads)
        self.program.write()
        return Losses(torch.tensor(total), len(stride.rates))

    def evaluated(self, loss: float | None) -> None:
        """Do nothing: learning rates here do not follow a loss."""

    @property
    def outputs_of(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Gives the outputs of the network as it is now."""
        return functools.partial(self.program.outputs, threads=self.threads)


def chain_of(frame: GDFrame, job: Job, needs: frozenset[str]) -> Chain | None:
    """Return the compiled steps that take a training; None where PyTorch's operations do.

    An estimator that looks at every step must see each, and PyTorch on many cores may be faster.
    """
    chain = frame.chain
    if chain is None or ("std" in needs and frame.config.std != "fisher"):
        return None
    return chain if chain.paths(job.mask).pays else None


def chain_learner(frame: GDFrame, chain: Chain, job: Job, network: JobNetwork, threads: int) -> ChainLearner:
    """Return the learner that takes the steps of a job.

    Args:
        frame: how to train.
        chain: the compiled steps of the search.
        job: the job to train.
        network: the network of the job.
        threads: how many may work on a stride at once.
    """
    part = frame.parts.train
    assert isinstance(part, Tensors)
    program = chain.program(network.model, network.mask, frame.factors.under(job.mask))
    rate = functools.partial(learning_rate, total=frame.total_steps, settings=frame.config)
    return ChainLearner(program, chain.paths(network.mask), part, frame.config.batch_size, rate, threads)
